"""English numbers in words."""

import functools
import re
from typing import Any

import typeguard

_GROUPED = re.compile(r"[0-9][0-9,]+[0-9]")
_POUNDS = re.compile(r"£([0-9,]*[0-9])")
_DOLLARS = re.compile(r"\$([0-9.,]*[0-9])")
_DECIMAL = re.compile(r"([0-9]+)\.([0-9]+)")
_ORDINAL = re.compile(r"[0-9]+(?:st|nd|rd|th)")
_NUMBER = re.compile(r"[0-9]+")


@functools.cache
def _engine() -> Any:
    # It decorates its methods so that they check the types of what they are given. That parses and
    # compiles inflect two dozen times, and takes 2 s of each process that reads a number.
    check = typeguard.typechecked
    typeguard.typechecked = _unchecked  # type: ignore[assignment]
    try:
        import inflect
    finally:
        typeguard.typechecked = check
    return inflect.engine()


def _unchecked(method: Any) -> Any:
    return method


def spell_numbers(text: str) -> str:
    """Write numerals as words.

    $12.50 -> twelve dollars, fifty cents; 1998 -> nineteen ninety-eight.
    """
    text = _GROUPED.sub(lambda match: match[0].replace(",", ""), text)
    text = _POUNDS.sub(r"\1 pounds", text)
    text = _DOLLARS.sub(lambda match: _dollars(match[1]), text)
    text = _DECIMAL.sub(r"\1 point \2", text)
    text = _ORDINAL.sub(lambda match: _engine().number_to_words(match[0]), text)
    return _NUMBER.sub(lambda match: _number(match[0]), text)


def spell_number(number: str) -> str:
    """Return digits in words, with an ending such as `rd` as an ordinal."""
    if number.isdecimal():
        return _number(number).replace(", ", " ")
    return _engine().number_to_words(number)


def spell_count(number: str) -> str:
    """Return a number that counts something in words, never as a year; its commas do not matter."""
    return _engine().number_to_words(number.replace(",", ""), andword="").replace(", ", " ")


def _dollars(amount: str) -> str:
    whole, _, fraction = amount.partition(".")
    if not (whole + fraction).isdigit():
        return f"{amount} dollars"
    units = [(int(whole or 0), "dollar"), (int(fraction or 0), "cent")]
    said = [f"{count} {unit}{'s' * (count != 1)}" for count, unit in units if count]
    return ", ".join(said) or "zero dollars"


def _number(digits: str) -> str:
    """Return a number in words; one between 1000 and 3000 is read as a year is."""
    number = int(digits) if len(digits) <= 36 else None
    if number is None:  # beyond the names of numbers
        return " ".join(_engine().number_to_words(digit) for digit in digits)
    if not 1000 < number < 3000 or number == 2000:
        return _engine().number_to_words(number, andword="")
    if 2000 < number < 2010:
        return f"two thousand {_engine().number_to_words(number % 100)}"
    if number % 100 == 0:
        return f"{_engine().number_to_words(number // 100)} hundred"
    return _engine().number_to_words(number, andword="", zero="oh", group=2).replace(", ", " ")


def ordinal(number: int) -> str:
    """Return a number as 1st, 2nd, 3rd, 4th."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ends.get(number % 10, 'th')}"
