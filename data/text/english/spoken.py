"""English as it is spoken: numbers, units, signs and abbreviations in words.

inflect spells the numbers; the rules here say which number is a price, a time or a year. Each has
its case in tests/data/text/cases.
"""

import functools
import re
from collections.abc import Callable

from anyascii import anyascii

from data.text.english.numbers import ordinal, spell_count, spell_number
from data.text.english.short_forms import (
    KINGS,
    NUMBERED,
    SHORT,
    TITLES,
    capitals,
    initials,
    roman,
    short,
    title,
)
from data.text.spoken.cleaning import Spoken, clean, keep, said_signs
from data.text.spoken.units import english_names, reader
from data.text.symbols import PUNCTUATION

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_LAST = rf"{_NUMBER}(?![\d-]|\s*[=+×÷])"  # of a range; the minus of a sum is none
_MONTH_NAMES = (
    "January February March April May June July August September October November December"
)
_MONTHS = _MONTH_NAMES.split()
_DIGIT_NAMES = "zero one two three four five six seven eight nine"
_DIGITS = _DIGIT_NAMES.split()
_CURRENCIES = {
    "$": ("dollar", "dollars"),
    "€": ("euro", "euros"),
    "£": ("pound", "pounds"),
    "¥": ("yen", "yen"),
    "₩": ("won", "won"),
    "₹": ("rupee", "rupees"),
    "₽": ("ruble", "rubles"),
    "¢": ("cent", "cents"),
}
_CURRENCY = "".join(_CURRENCIES)
_SCALES = {"k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million"}
_SCALES |= {"b": "billion", "B": "billion", "bn": "billion", "T": "trillion"}
_SCALE = r"(?:\s?(thousand|million|billion|trillion)\b|(k|K|mn|m|M|bn|b|B|T)\b)?"
_FRACTIONS = {2: ("half", "halves"), 4: ("quarter", "quarters")}


def _one_by_one(digits: str) -> str:
    return " ".join(_DIGITS[int(digit)] for digit in digits if digit.isdecimal())


def _decimal(match: re.Match[str]) -> str:
    """Spell the digits behind the point one by one."""
    whole, fraction = match.groups()
    said = f"{spell_number(whole.replace(',', ''))} " if whole else ""
    return f"{said}point {_one_by_one(fraction)}"


def _money(match: re.Match[str]) -> str:
    """Spell a price: $12.5 -> 12 dollars, 50 cents; £5.50 -> 5 pounds 50; $2m -> 2 million."""
    sign, amount, last, scale, letter = match.groups()
    one, many = _CURRENCIES[sign]
    amount = amount.replace(",", "")
    if last:
        amount = f"{amount} to {last.replace(',', '')}"
    if scale or letter:
        return f"{amount} {scale or _SCALES[letter]} {many}"
    whole, _, fraction = amount.partition(".")
    if last or not fraction or len(fraction) > 2 or sign in "¥₩¢":
        return f"{amount} {one if amount == '1' else many}"
    cents = int(fraction.ljust(2, "0"))
    pieces = [f"{int(whole)} {one if whole == '1' else many}"] if int(whole) or not cents else []
    if cents:
        named = sign in "$€" or not pieces
        unit = ("penny", "pence") if sign == "£" else ("cent", "cents")
        pieces.append(f"{cents} {unit[cents != 1]}" if named else f"{cents}")
    return (", " if sign in "$€" else " ").join(pieces)


def _money_behind(match: re.Match[str]) -> str:
    amount, sign = match.groups()
    return f"{amount} {_CURRENCIES[sign][amount != '1']}"


def _listed(match: re.Match[str]) -> str:
    """Part the numbers of a list; the commas of 1,234 are no list's."""
    grouped = re.fullmatch(r"\d{1,3}(,\d{3})+", match[0])
    return match[0] if grouped else match[0].replace(",", ", ")


def _phone(match: re.Match[str]) -> str:
    plus = "plus " if match[0].startswith("+") else ""
    return plus + ", ".join(_one_by_one(group) for group in re.findall(r"\d+", match[0]))


def _time(match: re.Match[str]) -> str:
    """Spell a time: 3:05 -> 3 oh 5; 3:00 -> 3 o'clock, and 3 before pm."""
    hour, minute, second, half = match.groups()
    said = f"{int(hour)}"
    if int(minute):
        said += f" {'oh ' if minute[0] == '0' else ''}{int(minute)}"
    elif not half and not second:
        said += " o'clock" if 0 < int(hour) <= 12 else " hundred" if int(hour) else " hours"
    if second:
        said += f" and {int(second)} seconds"
    return said


def _half_of_day(match: re.Match[str]) -> str:
    """Read 5pm and 9 a.m. as letters; a stop that also ends the sentence stays."""
    said = " P M" if "p" in match[0].lower() else " ay M"
    rest = match.string[match.end() :]
    ends = match[0].endswith(".") and re.match(r"\s*(?:$|[A-Z])", rest)
    return said + ("." if ends else "")


def _iso_date(match: re.Match[str]) -> str:
    return f"{_MONTHS[int(match[3]) - 1]} {int(match[4])}, {match[1]}"


def _american_date(match: re.Match[str]) -> str:
    month, day, year = match[1], match[2], match[3]
    if int(month) > 12:
        month, day = day, month
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
        return match[0]
    return f"{_MONTHS[int(month) - 1]} {int(day)}, {year}"


def _fraction(match: re.Match[str]) -> str:
    whole, above, below = match[1], int(match[2]), int(match[3])
    if below < 2 or above >= below or below > 100:
        said = f"{above} over {below}"
    elif below in _FRACTIONS:
        said = f"{spell_number(str(above))} {_FRACTIONS[below][above != 1]}"
    else:
        name = spell_number(ordinal(below))
        said = f"{spell_number(str(above))} {name}{'s' if above != 1 else ''}"
    if whole:
        said = f"{whole} and {'a ' + said.removeprefix('one ') if above == 1 else said}"
    return said


def _decade(match: re.Match[str]) -> str:
    """Spell 1990s and '90s as nineteen nineties and nineties."""
    said = spell_number(match[1])
    return (said[:-1] + "ies" if said.endswith("y") else f"{said}s") + match[2]


def _feet(match: re.Match[str]) -> str:
    inches = f" {match[2]} {'inch' if match[2] == '1' else 'inches'}" if match[2] else ""
    return f"{match[1]} {'foot' if match[1] == '1' else 'feet'}{inches}"


_BEFORE_NUMBERS: tuple[Rule, ...] = (
    (re.compile(r"(\d{1,2})['′]\s?(\d{1,2})(?:[\"″”]|''|(?!\w))"), _feet),
    (re.compile(r"(\d+)′(?!\w)()"), _feet),
    (re.compile(r"(\d+)\s?″"), r"\1 inches"),
    (re.compile(r'(?<!["\w.])(\d+)"(?=[\s.,]|$)(?=[^"]*$)(?<!"\d")(?<!"\d\d")'), r"\1 inches"),
    (re.compile(r"https?://(?:www\.)?", re.I), ""),
    (re.compile(r"(?<=\w)@(?=\w)"), " at "),
    (
        re.compile(
            r"(?<=[A-Za-z0-9])\.(?=(?:com|org|net|edu|gov|io|co|uk|de|jp|cn|ai|txt|pdf|py)\b)"
        ),
        " dot ",
    ),
    (re.compile(rf"\b({'|'.join(TITLES)})\.(?=\s+(?:[A-Z]|and\b))"), title),
    (re.compile(r"\b(Dr|Mr|Mrs|Prof)(?=\s+[A-Z])"), title),
    (re.compile(rf"\b({'|'.join(SHORT)})\b(\.?)(?!\w)", re.I), short),
    (re.compile(r"\be\.\s?g\.,?", re.I), "for example,"),
    (re.compile(r"\bi\.\s?e\.,?", re.I), "that is,"),
    (re.compile(r"\b(?:No|Nos)\.\s?(?=\d)|#\s?(?=\d)"), "number "),
    (re.compile(r"#(?=[A-Za-z])"), "hashtag "),
    (re.compile(r"\b(?:[A-Z]\.){2,}|\b[A-Z]\.(?=\s?[A-Z][a-z.])"), initials),
    (re.compile(rf"\b({NUMBERED}|{KINGS}) ([IVX]+)\b"), roman),
    # numbers that are dialled
    (
        re.compile(
            r"(?<![\d-])(?:\+\d{1,3}[- ])?(?:\(\d{3}\)\s?|\d{3}[- .])\d{3}[-.]\d{4}(?![\d-])"
        ),
        _phone,
    ),
    (re.compile(r"(?<![\d$-])\d{3}-\d{4}(?![\d-])"), _phone),
    (re.compile(r"\b(\d{4})([-/])(1[0-2]|0?[1-9])\2([12]\d|3[01]|0?[1-9])\b"), _iso_date),
    (re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b"), _american_date),
    (
        re.compile(
            r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?=(\s?[ap]\.?m)\b)?(?![\d:])",
            re.I,
        ),
        _time,
    ),
    (re.compile(r"(?<![\d:])(\d+):(\d+)(?![\d:])"), r"\1 to \2"),
    (
        re.compile(r"(?<=[\dk])\s?\b([ap])\.?\s?m\b\.?|(?<=\d)([ap])m\b|\b([ap])\.\s?m\b\.?", re.I),
        _half_of_day,
    ),
    (re.compile(r"(?<=\d),(?=\d{3}(?:,\d{3})*(?:st|nd|rd|th)\b)"), ""),
    # 1,234 is a number and 1,2,3 a list
    (re.compile(r"\d+(?:,\d+)+"), _listed),
    (
        re.compile(
            rf"(?:US|U\.S\.)?([{_CURRENCY}])\s?({_NUMBER})"
            rf"(?:\s?[-–—]\s?[{_CURRENCY}]?({_NUMBER}))?{_SCALE}"
        ),
        _money,
    ),
    (re.compile(rf"(?<![\w.])({_NUMBER})\s?([{_CURRENCY}])"), _money_behind),
    (re.compile(r"(?<= M)\s?[-—]\s?(?=\d)"), " to "),
    (re.compile(r"\b24/7\b"), "24 7"),
    (re.compile(r"\b9/11\b"), "9 11"),
    (re.compile(r"\b([a-z])([A-Z][a-z]{2,})\b"), r"\1 \2"),
    (re.compile(r"(?<![\d/])(?:(\d+) )?(?<![\d/.])(\d+)/(\d+)(?![\d/])"), _fraction),
    (re.compile(r"(?<!\d)'?(\d{2}|1[0-9]\d0|20\d0)s\b()"), _decade),
    (re.compile(rf"(?<![\w.-])({_NUMBER}%?)\s?[-–—~]\s?(?={_LAST})"), r"\1 to "),
    (re.compile(r"(?<=\d)\s?[-−]\s?(?=\d[\d.,]*\s*[=+×÷])"), " minus "),
    (re.compile(r"(?<![\w)])[-−](?=\s?\d)"), "minus "),
    (re.compile(r"~\s?(?=\d)"), "about "),
    (re.compile(r"(?<=\d)\s?x\s?(?=\d)"), " by "),
    (re.compile(r"(?<=[\w)])\s?[×*]\s?(?=[\d(])"), " times "),
    (re.compile(r"(?<=[\w)])\s?÷\s?(?=[\w(])"), " divided by "),
    (re.compile(r"\^2(?!\d)"), " squared"),
    (re.compile(r"\^3(?!\d)"), " cubed"),
    (re.compile(r"\^(\d+)"), r" to the power of \1"),
)
_COUNTED = "|".join(
    name for names in (*_CURRENCIES.values(), *english_names().values()) for name in names
)
_AFTER_UNITS: tuple[Rule, ...] = (
    (re.compile(r"(?<![\d.])((?:\d+(?:,\d{3})*)?)\.(\d+)(?!\.?\d)"), _decimal),
    (re.compile(r"\d{1,3}(?:,\d{3})+"), lambda match: f" {spell_count(match[0])} "),
    (re.compile(rf"\b\d{{4}}(?= (?:{_COUNTED})\b)"), lambda match: f" {spell_count(match[0])} "),
    (re.compile(r"(?<=\d)\.(?=\d)"), " point "),
    (re.compile(r"\b0\d+\b"), lambda match: _one_by_one(match[0])),
    (re.compile(r"\d+(?:st|nd|rd|th)\b"), lambda match: spell_number(match[0])),
    (re.compile(r"\d+"), lambda match: f" {spell_number(match[0])} "),
    (re.compile(r"\b([A-Z]{2,})\b('s)?"), capitals),
)
_SIGNS = {
    "&": "and",
    "@": "at",
    "+": "plus",
    "=": "equals",
    "%": "percent",
    "<": "less than",
    ">": "greater than",
    "≤": "at most",
    "≥": "at least",
    "≈": "approximately",
    "≠": "is not",
    "×": "times",
    "÷": "divided by",
    "±": "plus or minus",
    "°": "degrees",
    "§": "section",
    "√": "square root of",
    "∞": "infinity",
    "#": "number",
    "$": "dollar",
    "€": "euro",
    "£": "pound",
    "¥": "yen",
    "‰": "per thousand",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "θ": "theta",
    "λ": "lambda",
    "μ": "mu",
    "π": "pi",
    "σ": "sigma",
    "φ": "phi",
    "ω": "omega",
    "Ω": "ohm",
    "Δ": "delta",
    "Σ": "sigma",
    "/": "",
    "_": "",
    "\\": "",
    "|": "",
    "*": "",
    "^": "",
    "`": "",
}
_SIGN = said_signs(_SIGNS)
_SILENT = "/_\\|*^`"
_OPENING = re.compile(r"\s*[(\[{“‘„《【「『〈〔]\s*")
_CLOSING = re.compile(r"\s*[)\]}”《》】」』〉〕]")
_MARK_OF = str.maketrans(
    {
        **dict.fromkeys("，、：；:;·・", ","),
        **dict.fromkeys("。．", "."),
        **dict.fromkeys("’‘", "'"),
        **dict.fromkeys("—~", "-"),
        "！": "!",
        "？": "?",
        "…": "...",
    }
)
_BEFORE_WORD = re.compile(r"([,;.?!])(?=[^\W_])")
_MARKS = re.escape("".join(PUNCTUATION))
_READ = re.compile(rf"[A-Za-z {_MARKS}]")


@functools.cache
def _units() -> Callable[[str], str]:
    known = english_names()
    return reader(
        lambda number, unit: f"{number} {known[unit][number != '1']}" if number else known[unit][1],
        known,
    )


def speak(text: str) -> Spoken:
    """Return a text in words of ASCII letters and the symbol set's punctuation."""
    text = clean(text).replace("\u3000", " ")
    text = "".join(map(_plain_letter, text))
    for pattern, said in _BEFORE_NUMBERS:
        text = pattern.sub(said, text)
    text = _units()(text)
    for pattern, said in _AFTER_UNITS:
        text = pattern.sub(said, text)
    text = re.sub(r" +", " ", text)
    text = _SIGN.sub(lambda match: f" {_SIGNS[match[0]]} ", text)
    text = _quoted(text).translate(_MARK_OF)
    spoken = keep(_BEFORE_WORD.sub(r"\1 ", text), _READ, _SILENT)
    return Spoken(_tidied(spoken.text), spoken.unread)


def _plain_letter(char: str) -> str:
    """Return a Latin letter that is not of ASCII as ASCII ones: é, ß, ø."""
    is_latin = char > "\u00bf" and char.isalpha() and char < "\u0250"
    return anyascii(char) if is_latin else char


def _quoted(text: str) -> str:
    """Write quotes and brackets as ', with a space outside of them, so that no word holds them."""
    pieces = text.split('"')
    text = "".join(
        piece + ("" if index == len(pieces) - 1 else (" “" if index % 2 == 0 else "” "))
        for index, piece in enumerate(pieces)
    )
    return _CLOSING.sub("' ", _OPENING.sub(" '", text))


def _tidied(text: str) -> str:
    """Leave one space between words, and none before punctuation."""
    text = re.sub(r" +", " ", text)
    return re.sub(r" (?=[,.?!])", "", text).strip()
