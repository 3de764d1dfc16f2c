"""Search spaces: YAML files over the configuration's dotted keys, refused before anything starts where they do not fit.

A file maps keys to one of four kinds:

    train.loss_weights.mel: {loguniform: [15, 135]}
    train.loss_weights.duration: {uniform: [0.5, 2]}
    train.precision: {choice: [fp32, bf16]}
    train.clip_norm.g: {grid: [100, 500, none]}
"""

import math
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

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
        kind: `uniform` and `loguniform` are ranges; of `grid` each value is tried where the search
            is a grid, else it is a `choice`.
        values: of a range low and high, else what is chosen from.
    """

    kind: Kind
    values: tuple[Any, ...]

    @property
    def is_range(self) -> bool:
        """Whether it has infinitely many values."""
        return self.kind in ("uniform", "loguniform")

    def holds(self, value: Any) -> bool:
        """Whether it can have this value."""
        if self.is_range:
            return isinstance(value, float) and self.values[0] <= value <= self.values[1]
        return value in self.values


Space = dict[str, Axis]  # dotted key -> axis


def names() -> list[str]:
    """Names of the spaces that come with the project."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def read_space(name: str, cfg: Config) -> Space:
    """Read a space and check it against the configuration that its trials start from.

    Args:
        name: of a space in tuning/spaces, or the path of a YAML file.
        cfg: the configuration whose keys it varies.

    Raises:
        ValueError: there is no such space; or a key is unknown or must be the same in all trials, a
            value has the wrong type, or a range is impossible. Names the key and the file.
    """
    path = SPACES / f"{name}.yaml" if name in names() else Path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"--space {name}: no such file, and the named spaces are {', '.join(names())}"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"--space {path} is no YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"--space {path}: give a line `key: {{kind: [values]}}` for each key that is searched over"
        )
    space = {}
    for key, described in content.items():
        try:
            space[str(key)] = _axis(str(key), described, cfg)
        except ValueError as error:
            raise ValueError(f"{error} (space {path})") from error
    return space


def configured(cfg: Config, key: str) -> Any:
    """What a configuration has under a dotted key."""
    return reduce(getattr, key.split("."), cfg)


def _axis(key: str, described: object, cfg: Config) -> Axis:
    """The axis of a key; ValueErrors name the key."""
    if key.startswith(FIXED):
        raise ValueError(
            f"{key} must be the same in all trials: take it out, and give it on the command line"
        )
    if (
        not isinstance(described, dict)
        or len(described) != 1
        or next(iter(described)) not in get_args(Kind)
    ):
        raise ValueError(
            f"{key} is {described!r}: give {{kind: [values]}}, kind one of {', '.join(get_args(Kind))}"
        )
    ((kind, given),) = described.items()
    if not isinstance(given, list) or not given:
        raise ValueError(f"{key} has no values: give {kind} a list of them")
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
    if axis.kind == "loguniform" and low <= 0:
        raise ValueError(f"{shown}: a logarithmic range must begin above 0")


def _typed(key: str, value: object, cfg: Config) -> Any:
    """A value as the configuration takes it: 1e-4 is a text in YAML, and 45 a whole number."""
    return configured(overridden(cfg, {key: value}), key)
