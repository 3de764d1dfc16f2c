"""What a run's configuration says now, and what it said when its checkpoint was written."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml


def changed_settings(before: str, now: str) -> list[str]:
    """The keys of two configurations whose values differ, `key old -> new` each.

    Args:
        before: YAML of sections and keys.
        now: the same. A key that one of them lacks is of another version of the code, and left out.
    """
    old, new = (dict(_keys(yaml.safe_load(text))) for text in (before, now))
    return [f"{key} {old[key]} -> {value}" for key, value in new.items() if key in old and old[key] != value]


def _keys(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
