"""Words of English to phones: the CMU pronouncing dictionary, and for words that it has not, a network's guess.

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
"""A phone and its tone: 3 for a consonant; for a vowel 1 without stress, 2 with the main one, 3 with a second one."""

_PARTS = re.compile(r"[a-z]+(?:'[a-z]+)*|[^a-z]")


@functools.cache
def _dictionary() -> dict[str, str]:
    """The reading, in ARPAbet, of each word of the CMU dictionary."""
    lines = gzip.decompress(DICTIONARY_FILE.read_bytes()).decode().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _phones(arpabet: str) -> list[Phone]:
    return [
        (
            name.rstrip("012").lower() if name != "V" else "V",
            int(name[-1]) + 1 if name[-1].isdigit() else 3,
        )
        for name in arpabet.split()
    ]


def _plain(word: str) -> str:
    """Lower case, without accents, letters of full width as others."""
    return "".join(
        char
        for char in unicodedata.normalize("NFKD", word).lower()
        if not unicodedata.combining(char)
    )


@functools.lru_cache(maxsize=65536)
def read_word(word: str) -> tuple[Phone, ...]:
    """The phones of a word or a piece of one; none of what is neither letter nor punctuation.

    Args:
        word: May hold apostrophes.
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
