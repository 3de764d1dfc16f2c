"""The configuration's keys: what each is declared as, what its words are, and which one was meant.

The words are those of the dataclasses' docstrings: docs/configuration.md and --help-all have them.
"""

import difflib
import functools
import inspect
import re
import types
from collections.abc import Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from data.settings.declared import declared
from job.settings.config import Config

UNSAID = ("in one line", "(not empty)")  # of nearly every text


@functools.cache
def known_keys() -> dict[str, Any]:
    """Return dotted key -> declared type, of all that is not a section."""
    return dict(_keys(Config, ""))


def _keys(section: Any, prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, hint in declared(section).items():
        found += _keys(hint, f"{prefix}{name}.") if is_dataclass(hint) else [(prefix + name, hint)]
    return found


def declared_at(key: str) -> Any:
    """Return the declared type of a key or section; None if there is none of this name."""
    found: Any = Config
    for name in key.split("."):
        keys = declared(found) if is_dataclass(found) else {}  # type: ignore[arg-type]
        if name not in keys:
            return None
        found = keys[name]
    return found


def unknown(key: str) -> str:
    """Return the one line that refuses a key which is none, with the one that may be meant."""
    if key in known_keys():
        nested = ": {".join(key.split(".")) + ": ..." + "}" * key.count(".")
        return f"{key} is no key of a file, whose sections lie in each other: write {nested}"
    return f"{key} is no key of the configuration{did_you_mean(key, known_keys())}"


def did_you_mean(given: str, known: Collection[str]) -> str:
    """Return `: did you mean X?` for the name that is nearest, or nothing if none is near."""
    by_last = {name.rpartition(".")[2]: name for name in known}
    last = given.rpartition(".")[2]
    near = difflib.get_close_matches(given, known, 1, 0.75)
    near = near or [by_last[name] for name in difflib.get_close_matches(last, by_last, 1, 0.75)]
    return f": did you mean {near[0]}?" if near else ""


def meanings(cls: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says about each field.

    Raises:
        ValueError: it leaves out a field, or describes one that does not exist.
    """
    block = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block, re.MULTILINE)
    found = {name: re.sub(r"\s+", " ", text).strip() for name, text in entries}
    odd = found.keys() ^ {f.name for f in fields(cls)}
    if odd:
        raise ValueError(
            f"{cls.__name__}: its docstring's Attributes and its fields differ in "
            f"{', '.join(sorted(odd))}"
        )
    return found


def written_type(hint: Any) -> str:
    """Return a declared type as a user would write its values."""
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        limits = [repr(limit) for limit in args[1:] if repr(limit) not in UNSAID]
        return " ".join([written_type(args[0]), *limits])
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else written_type(a) for a in args)
    if origin is dict:
        return f"{{{written_type(args[0])}: {written_type(args[1])}}}"
    if origin is tuple or origin is list:
        shown = [written_type(a) for a in args if a is not Ellipsis]
        any_length = origin is list or Ellipsis in args
        return f"[{', '.join(shown)}{', ...' if any_length else ''}]"
    return hint.__name__


def written_default(field: Field) -> str:
    """Return the default of a key as a user would write it."""
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return _written(value)


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)
