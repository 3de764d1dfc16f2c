"""How a word sounds that no dictionary has: each letter by its neighbours, as learnt from the CMU dictionary.

The table is made by tools/make_english_letters.py; the dictionary's licence is in LICENSE.cmudict.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

LETTERS_FILE = Path(__file__).with_name("english_letters.txt")

SILENT = "-"
_NEIGHBOURS = (1, -1, 2, -2, 3, -3, 4)
"""Places from the letter, in the order in which they are asked."""


def contexts(word: str, index: int) -> Iterator[str]:
    """A letter, and then with one neighbour more each; "#" is beyond the word."""
    context = word[index]
    yield context
    for offset in _NEIGHBOURS:
        place = index + offset
        context += word[place] if 0 <= place < len(word) else "#"
        yield context


@functools.cache
def _table() -> dict[str, str]:
    lines = LETTERS_FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def letters_to_phones(word: str) -> str:
    """The phones, in ARPAbet with stress, of a word in lower-case letters a to z; it may have none."""
    read = []
    for index in range(len(word)):
        known = [_table()[context] for context in contexts(word, index) if context in _table()]
        read += known[-1].replace(SILENT, "").split()
    return " ".join(_one_main_stress(read))


def _one_main_stress(phones: list[str]) -> list[str]:
    """Letters know nothing of each other's stress: the first main one stays, others become second."""
    stressed = [index for index, phone in enumerate(phones) if phone.endswith("1")]
    vowels = [index for index, phone in enumerate(phones) if phone[-1].isdigit()]
    for index in stressed[1:]:
        phones[index] = phones[index][:-1] + "2"
    if vowels and not stressed:
        phones[vowels[0]] = phones[vowels[0]][:-1] + "1"
    return phones
