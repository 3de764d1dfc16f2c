"""The configuration's keys: which there are, what each is declared as, and which one was meant."""

import difflib
import functools
from collections.abc import Collection
from dataclasses import is_dataclass
from typing import Any

from data.declared import declared
from job.settings.config import Config


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
