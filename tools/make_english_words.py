"""Write data/text/english/words.gz: `python -m tools.make_english_words cmudict_cache.pickle`.

It is the CMU pronouncing dictionary 0.6, with which published models were trained. No package index
carries that edition by itself; the file is part of the source distribution melotts 0.1.1 (MIT).
Second readings of a word ("READ(2)") and the names of signs are left out: nothing looks them up.
"""

import gzip
import pickle  # noqa: TID251
import sys
from pathlib import Path
from typing import Any

from data.text.english.words import DICTIONARY_FILE


class DataOnly(pickle.Unpickler):  # noqa: TID251  # it refuses all but strings
    """An unpickler of lists, dicts and strings that refuses what would run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class and function."""
        raise pickle.UnpicklingError(f"{module}.{name}: a dictionary of strings is expected")


def main(path: Path) -> None:
    """Turn WORD -> phones of each syllable into lines "word PHONE ..."."""
    with path.open("rb") as file:
        readings: dict[str, list[list[str]]] = DataOnly(file).load()
    lines = [
        f"{word.lower()} {' '.join(phone for syllable in syllables for phone in syllable)}\n"
        for word, syllables in readings.items()
        if (word[0].isalpha() or word[0] == "'") and "(" not in word
    ]
    # without a time of making, so that equal data are equal files
    DICTIONARY_FILE.write_bytes(gzip.compress("".join(sorted(lines)).encode(), mtime=0))
    print(f"{len(lines)} words, {DICTIONARY_FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
