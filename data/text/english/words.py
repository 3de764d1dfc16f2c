"""Words of English to phones: by the CMU pronouncing dictionary, or else by a network's guess.

The dictionary is edition 0.6, with which published models were trained: later ones read 4,000 words
otherwise ("and", "here", "visit"), and know thousands more, which those models heard as guesses.
Its source and licence are in NOTICE.
"""

import functools
import gzip
import re
import unicodedata
from pathlib import Path

from data.text.english.gru import ARPABET, guess
from data.text.symbols import PUNCTUATION

DICTIONARY_FILE = Path(__file__).with_name("words.gz")

Phone = tuple[str, int]
"""A phone and its tone: of a vowel 1 without stress, 2 with main, 3 with second stress; else 3."""

_CASED = re.compile(r"[A-Z]?[a-z]+(?:'[a-z]+)?|[A-Z]+(?![a-z])(?:'[a-z]+)?")
_VOWEL = re.compile("[aeiouy]")
_PARTS = re.compile(r"[a-z]+(?:'[a-z]+)*|[^a-z]")


@functools.cache
def _dictionary() -> dict[str, str]:
    """Return the reading, in ARPAbet, of each word of the CMU dictionary."""
    lines = gzip.decompress(DICTIONARY_FILE.read_bytes()).decode().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _phones(arpabet: str) -> list[Phone]:
    return [_phone(name) for name in arpabet.split()]


def _phone(name: str) -> Phone:
    """Return the phone of an ARPAbet name: AH1 -> ah with tone 2."""
    symbol = name.rstrip("012").lower() if name != "V" else "V"
    return symbol, int(name[-1]) + 1 if name[-1].isdigit() else 3


def phones_of_arpabet(reading: str) -> list[Phone]:
    """Return the phones of a reading in ARPAbet: W IH1 N.

    Raises:
        ValueError: a name that ARPAbet lacks.
    """
    names = reading.upper().split()
    if wrong := [name for name in names if name not in ARPABET]:
        raise ValueError(f"{reading!r}: {wrong[0]} is no phone of ARPAbet, as in `W IH1 N`")
    return [_phone(name) for name in names]


def _plain(word: str) -> str:
    """Return a word in lower case, without accents, and letters of full width as others."""
    letters = unicodedata.normalize("NFKD", word).lower()
    return "".join(char for char in letters if not unicodedata.combining(char))


def words_in(letters: str) -> list[str]:
    """Cut letters that stand together where their case says so, into words and single letters.

    iPhone -> i Phone, but PyTorch, whose first part is no word, stays whole.
    """
    parts = _CASED.findall(letters)
    whole = any(len(part) > 1 and part[1:].islower() and not is_word(part) for part in parts)
    return [letters.lower()] if whole and len(parts) > 1 else parts


@functools.lru_cache(maxsize=65536)
def is_word(letters: str) -> bool:
    """Tell whether letters are a word that is read, rather than spelled letter by letter.

    In capitals these are the dictionary's of more than three letters; others may be unknown.
    """
    word = letters.lower()
    if len(word) < 2 or not _VOWEL.search(word):
        return False
    known = word in _dictionary()
    if letters.isupper():
        return known and len(word) > 3
    return known or len(word) > 3


def in_compound(word: str) -> list[str]:
    """Return the two words that a compound is made of, voice bank, or else the word itself.

    A compound is not in the dictionary; its words are, and have four letters or more. Where it can
    be cut in several places, the second word is the longest: time stamp.
    """
    known = _dictionary()
    plain = _plain(word)
    if plain not in known:
        for end in range(4, len(plain) - 3):
            if plain[:end] in known and plain[end:] in known:
                return [plain[:end], plain[end:]]
    return [word]


def is_spelled(capitals: str) -> bool:
    """Tell whether capitals are said letter by letter: FBI, HTML, but neither NASA nor STOP."""
    word = capitals.lower()
    return word not in _dictionary() and (len(word) <= 4 or not _VOWEL.search(word))


def arpabet(word: str) -> list[str]:
    """Return the phones of a word of letters, in ARPAbet with stress."""
    plain = _plain(word)
    return (_dictionary().get(plain) or guess(plain)).split()


@functools.lru_cache(maxsize=65536)
def read_word(word: str) -> tuple[Phone, ...]:
    """Return the phones of a word or a piece of one; only letters and punctuation have any.

    Args:
        word: may hold apostrophes.
    """
    word = _plain(word)
    known = _dictionary().get(word)
    if known is not None:
        return tuple(_phones(known))
    phones: list[Phone] = []
    for part in _PARTS.findall(word):
        if part in PUNCTUATION:
            phones.append((part, 0))
        elif "a" <= part[0] <= "z":
            phones += _phones(_dictionary().get(part) or guess(part))
    return tuple(phones)
