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

from data.text.english.gru import guess
from data.text.symbols import PUNCTUATION

DICTIONARY_FILE = Path(__file__).with_name("words.gz")

Phone = tuple[str, int]
"""A phone and its tone: of a vowel 1 without stress, 2 with main, 3 with second stress; else 3."""

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


def _plain(word: str) -> str:
    """Return a word in lower case, without accents, and letters of full width as others."""
    letters = unicodedata.normalize("NFKD", word).lower()
    return "".join(char for char in letters if not unicodedata.combining(char))


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
