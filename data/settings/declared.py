"""What a setting may be, declared in its type, and checked wherever settings are made.

    max_steps: Annotated[int, Range(1)] = 500_000
    ema_decay: Annotated[float, Range(0, below=1)] = 0.0
    upsample_rates: Annotated[tuple[Annotated[int, Range(1)], ...], Size(1)] = (8, 8, 2, 2, 2)

From these declarations follow the check, its message, and the column of docs/configuration.md.
"""

import functools
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, repr=False)
class Range:
    """The numbers from a lowest to a highest.

    Attributes:
        low: smallest number; None: there is none.
        high: largest number; None: there is none.
        above: what numbers are larger than, where there is no smallest.
        below: what numbers are smaller than, where there is no largest.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: Any) -> bool:
        """Tell whether a number lies in the range."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __repr__(self) -> str:
        """Return it in words, which follow `a number`."""
        to = "" if self.low is None and self.above is None else "to "
        words = (
            ("from", self.low),
            ("above", self.above),
            ("to" if to else "at most", self.high),
            (f"{to}below", self.below),
        )
        return " ".join(f"{word} {bound:,}" for word, bound in words if bound is not None)


@dataclass(frozen=True, repr=False)
class Size:
    """Texts, lists and tables that are long enough.

    Attributes:
        low: fewest characters or items.
    """

    low: int

    def holds(self, value: Any) -> bool:
        """Tell whether a value is long enough."""
        return len(value) >= self.low

    def __repr__(self) -> str:
        """Return it in words, which follow `text` or `a list`."""
        return "(not empty)" if self.low == 1 else f"({self.low} or more)"


@dataclass(frozen=True, repr=False)
class OneLine:
    """Texts that logs and messages can show in one line."""

    def holds(self, value: str) -> bool:
        """Tell whether a text has no line break."""
        return not {"\r", "\n"} & set(value)

    def __repr__(self) -> str:
        """Return it in words, which follow `text`."""
        return "in one line"


Line = Annotated[str, OneLine()]
Text = Annotated[str, OneLine(), Size(1)]  # a path, a name
Count = Annotated[int, Range(1)]
Hertz = Annotated[int, Range(1000, 384_000)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Amount = Annotated[float, Range(0)]  # of seconds, of a weight, of noise


@dataclass(frozen=True)
class Settings:
    """A section of the configuration: none is ever made with a value that it may not have.

    A subclass is a frozen dataclass of annotated fields, `class Plan(Settings,
    section="data.plan")`; the section is where its keys stand.

    Attributes:
        section: dotted key of the section; its messages begin with it.
    """

    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str = "", **kwargs: Any) -> None:
        """Take note of where the keys stand."""
        super().__init_subclass__(**kwargs)
        cls.section = section

    def __post_init__(self) -> None:
        """Check the values, then what they must fulfil together.

        Raises:
            ValueError: names the key, its value, and what it may be.
        """
        for name, hint in declared(type(self)).items():  # type: ignore[arg-type]
            if (wrong := _mistake(hint, getattr(self, name))) is not None:
                where, value, inner = wrong
                raise ValueError(refusal(f"{self.prefix}{name}{where}", value, inner))
        for problem in self.problems():
            raise ValueError(problem)

    @property
    def prefix(self) -> str:
        """What the section's keys begin with."""
        return f"{self.section}." if self.section else ""

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the values together: one line each, which names the keys."""
        yield from ()


def refusal(key: str, value: object, hint: Any) -> str:
    """Return the one line that refuses a value.

    Args:
        key: dotted key.
        value: what it was given.
        hint: its declared type.
    """
    shown = repr(value) if isinstance(value, str) else str(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}..."
    return f"{key} is {shown}: give {wanted(hint)}"


@functools.cache
def declared(cls: type) -> dict[str, Any]:
    """Return name -> type of a section's keys, with their ranges."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def allows(hint: Any, value: object) -> bool:
    """Tell whether a declared type has this value."""
    return _mistake(hint, value) is None


Mistake = tuple[str, object, Any]  # what follows the key, the value, and the type that refuses it


def _mistake(hint: Any, value: Any) -> Mistake | None:
    """Return the part of a value that its declared type refuses; None if there is none."""
    origin = get_origin(hint)
    args = get_args(hint)
    refused = ("", value, hint)
    if origin is Annotated:
        inner = _mistake(args[0], value)
        if inner is not None:
            return refused if inner[0] == "" else inner
        return None if all(limit.holds(value) for limit in args[1:]) else refused
    if origin in (Union, types.UnionType):
        return None if any(allows(arg, value) for arg in args) else refused
    if origin is Literal:
        return None if any(value == arg and type(value) is type(arg) for arg in args) else refused
    if origin in (tuple, list):
        return _mistake_in_list(hint, value)
    if origin is dict:
        return _mistake_in_table(hint, value)
    return None if _is_plain(hint, value) else refused


def _mistake_in_list(hint: Any, value: Any) -> Mistake | None:
    """Return what is wrong with a list or tuple."""
    args = get_args(hint)
    if not isinstance(value, list | tuple):
        return "", value, hint
    any_length = get_origin(hint) is list or args[-1] is Ellipsis
    if not any_length and len(value) != len(args):
        return "", value, hint
    inner = [args[0]] * len(value) if any_length else args
    fits = all(allows(arg, item) for arg, item in zip(inner, value, strict=True))
    return None if fits else ("", value, hint)


def _mistake_in_table(hint: Any, value: Any) -> Mistake | None:
    """Return what is wrong with a table of names."""
    _, of_values = get_args(hint)
    if not isinstance(value, Mapping):
        return "", value, hint
    for name, item in value.items():
        if not isinstance(name, str) or not name:
            return "", value, hint
        if (inner := _mistake(of_values, item)) is not None:
            where, wrong, refusing = inner
            return f".{name}{where}", wrong, refusing
    return None


def _is_plain(hint: Any, value: object) -> bool:
    """Tell whether a value is of a type without parts."""
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)  # type: ignore[arg-type]
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and "\0" not in value  # which ends it for the system
    if hint is types.NoneType:
        return value is None
    return isinstance(value, hint)


PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def wanted(hint: Any, many: bool = False) -> str:
    """Return in words what a declared type takes.

    Args:
        hint: the type.
        many: whether several of it are asked for.
    """
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        limits = " ".join(repr(limit) for limit in args[1:] if repr(limit))
        return f"{wanted(args[0], many)} {limits}"
    if origin in (Union, types.UnionType):
        return " or ".join("none" if arg is types.NoneType else wanted(arg) for arg in args)
    if origin is Literal:
        *others, last = map(str, args)
        return f"{', '.join(others)} or {last}" if others else last
    if origin is list or (origin is tuple and args[-1] is Ellipsis):
        return f"{'lists' if many else 'a list'} of {wanted(args[0], True)}"
    if origin is tuple:
        return f"a list of {len(args)}: {', '.join(wanted(arg) for arg in args)}"
    if origin is dict:
        return f"a table of name: {wanted(args[1])}"
    if is_dataclass(hint):
        names = ", ".join(declared(hint))  # type: ignore[arg-type]
        return f"a section with {names}" if len(names) < 40 else "a section of keys"
    words = PLAIN[hint]
    return f"{words.removeprefix('a ')}s" if many and hint in (int, float) else words
