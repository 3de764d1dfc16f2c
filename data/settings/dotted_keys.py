"""Nested sections, such as a configuration's, as dotted keys (`train.max_steps`), and back."""

from collections.abc import Container, Mapping
from functools import reduce
from typing import Any


def flat(
    sections: Mapping[str, Any], whole: Container[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """Return dotted key -> value for all that is not a section; an empty section is a value.

    Args:
        sections: name -> value or further sections.
        whole: dotted keys whose sections are values, such as a table of names.
        prefix: what the keys begin with.
    """
    found: dict[str, Any] = {}
    for name, value in sections.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key not in whole:
            found |= flat(value, whole, f"{key}.")
        else:
            found[key] = value
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections of sections for dotted key -> value."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        assign(sections, key, value)
    return sections


def assign(sections: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted key; sections that are missing are added."""
    *path, name = key.split(".")
    for section in path:
        sections = sections.setdefault(section, {})
    sections[name] = value


def attribute(owner: object, key: str) -> Any:
    """Return the attribute of an object at a dotted key."""
    return reduce(getattr, key.split("."), owner)
