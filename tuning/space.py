"""Search spaces: YAML files over the configuration's dotted keys, checked before anything starts.

A file maps keys to one of four kinds:

    train.loss_weights.mel: {loguniform: [15, 135]}
    train.loss_weights.duration: {uniform: [0.5, 2]}
    train.precision: {choice: [fp32, bf16]}
    train.clip_norm.g: {grid: [100, 500, none]}
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from data.settings.dotted_keys import attribute
from job.settings.cli import overridden
from job.settings.config import Config

SPACES = Path(__file__).parent / "spaces"
Kind = Literal["uniform", "loguniform", "choice", "grid"]

# what is the same in all trials: where they lie, what they are given, and how they are judged
FIXED = ("run.", "scaling.", "data.", "eval.", "train.max_steps", "train.checkpoint.")


@dataclass(frozen=True)
class Axis:
    """What a key of the configuration may be.

    Attributes:
        kind: `uniform` and `loguniform` are ranges; `grid` tries each value if the search is a
            grid, and is a `choice` otherwise.
        values: low and high of a range; otherwise, what is chosen from.
    """

    kind: Kind
    values: tuple[Any, ...]

    @property
    def is_range(self) -> bool:
        """Whether it has infinitely many values."""
        return self.kind in ("uniform", "loguniform")

    @property
    def is_logarithmic(self) -> bool:
        """Whether its values are spread evenly on a logarithmic scale."""
        return self.kind == "loguniform"

    def holds(self, value: Any) -> bool:
        """Return whether it can have this value."""
        if self.is_range:
            return isinstance(value, float) and self.values[0] <= value <= self.values[1]
        return value in self.values


Space = dict[str, Axis]  # dotted key -> axis


def names() -> list[str]:
    """Return the names of the spaces that come with the project."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def read_space(name: str, cfg: Config) -> Space:
    """Read a space and check it against the configuration that its trials start from.

    Args:
        name: name of a space in tuning/spaces, or path of a YAML file.
        cfg: the configuration whose keys it varies.

    Raises:
        ValueError: there is no such space; or a key is unknown or must be the same in all trials, a
            value has the wrong type, or a range is impossible. Names the key and the file.
    """
    path = SPACES / f"{name}.yaml" if name in names() else Path(name)
    space = {}
    for key, described in _content(name, path).items():
        try:
            space[str(key)] = _axis(str(key), described, cfg)
        except ValueError as error:
            raise ValueError(f"{error} (space {path})") from error
    return space


def _content(name: str, path: Path) -> dict[Any, Any]:
    """Return the content of a space's file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"--space {name}: no such file, and the named spaces are {', '.join(names())}"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"--space {path} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"--space {path}: give a line `key: {{kind: [values]}}` for each key that is searched "
            "over"
        )
    return content


def _axis(key: str, described: object, cfg: Config) -> Axis:
    """Return the axis of a key; ValueErrors name the key."""
    if key.startswith(FIXED):
        raise ValueError(
            f"{key} must be the same in all trials: take it out, and give it on the command line"
        )
    kinds = get_args(Kind)
    if not isinstance(described, dict) or len(described) != 1 or next(iter(described)) not in kinds:
        raise ValueError(
            f"{key} is {described!r}: give {{kind: [values]}}, kind one of {', '.join(kinds)}"
        )
    ((kind, given),) = described.items()
    if not isinstance(given, list) or not given:
        raise ValueError(f"{key} has no values: give {kind} a list of them")

    # as the configuration takes them, so that equal values compare equal
    values = tuple(_typed(key, value, cfg) for value in given)
    axis = Axis(kind, values)
    if axis.is_range:
        _check_range(key, axis)
    elif any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError(f"{key}: {kind} has a value twice: {list(values)}")
    return axis


def _check_range(key: str, axis: Axis) -> None:
    """Refuse a range that nothing can be drawn from."""
    shown = f"{key}: {axis.kind} {list(axis.values)}"
    if len(axis.values) != 2:
        raise ValueError(f"{shown} is no range: give [low, high]")
    low, high = axis.values
    if not all(isinstance(bound, float) for bound in axis.values):
        raise ValueError(f"{shown}: {key} takes no fractions: give a choice of its values")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{shown} is empty: low must be smaller than high, and both finite")
    if axis.is_logarithmic and low <= 0:
        raise ValueError(f"{shown}: a logarithmic range must begin above 0")


def _typed(key: str, value: object, cfg: Config) -> Any:
    """Return a value as the configuration takes it: 1e-4 is text in YAML, and 45 a whole number."""
    return attribute(overridden(cfg, {key: value}), key)
