"""Write docs/configuration.md: `python -m tools.config_reference`."""

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from data.declared import declared
from job.settings.config import Config

UNSAID = ("in one line", "(not empty)")  # of nearly every text
PAGE = Path(__file__).parents[1] / "docs/configuration.md"
HEAD = """\
# Configuration

Made by `python -m tools.config_reference` from the dataclasses beside the code that they govern; do
not edit.

A configuration is a YAML file of sections and keys, or several (`--config A --config B`, later ones
win), then what the command line overrides: `--train.learning_rate 1e-4`,
`--scaling.num_workers '[2, 8]' --train.micro_batches_per_step 8`. Files are UTF-8. An unknown key,
a key given twice, and a value that its key may not have are refused before anything starts, in one
line with the key, and with file and line if it stands in a file. A run's resolved configuration
lies in its folder and in each of its checkpoints.
Presets are in [job/presets](../job/presets).
"""


def page() -> str:
    """Return the page."""
    return HEAD + "".join(_section(Config, ""))


def _section(cls: type, key: str) -> Iterator[str]:
    """Yield the tables of a dataclass and of those in it, at a dotted key."""
    meanings = attributes(cls)
    hints = declared(cls)
    inner = [f for f in fields(cls) if is_dataclass(hints[f.name])]
    own = [f for f in fields(cls) if f not in inner]
    if key:
        summary = (inspect.getdoc(cls) or "").partition("\n")[0]
        yield f"\n## {key}\n\n{summary}\n"
    if own:
        yield "\n| key | type | default | |\n|---|---|---|---|\n"
    for f in own:
        cells = (f"`{f.name}`", _code(_type(hints[f.name])), _code(_default(f)), meanings[f.name])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    for f in inner:
        yield from _section(hints[f.name], f"{key}.{f.name}".lstrip("."))


def attributes(cls: type) -> dict[str, str]:
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


def _type(hint: Any) -> str:
    """Return a type as a user would write its values."""
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        limits = [repr(limit) for limit in args[1:] if repr(limit) not in UNSAID]
        return " ".join([_type(args[0]), *limits])
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _type(a) for a in args)
    if origin is dict:
        return f"{{{_type(args[0])}: {_type(args[1])}}}"
    if origin is tuple or origin is list:
        shown = [_type(a) for a in args if a is not Ellipsis]
        any_length = origin is list or Ellipsis in args
        return f"[{', '.join(shown)}{', ...' if any_length else ''}]"
    return hint.__name__


def _default(field: Field) -> str:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else '`""`'


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
