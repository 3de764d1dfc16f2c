"""What is nearly the same: recordings by their fingerprints, and speakers by their names."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

BLOCKS = 4  # of a fingerprint, one of which is equal in copies
NEIGHBOURS = 3  # that a line is compared with in the order of each block
# measured: copies as MP3 and Ogg differ in up to 5 bits, other utterances of a voice in 17 or more
BITS = 6
LENGTHS = 0.02  # by which copies may differ, of the longer one
LEAST_BITS = 8  # that are set and unset: steady tones set few, whatever they are
NAMES_SHOWN = 5
AT_A_TIME = 4096  # lines that are looked at together, to hold little memory


def copies(fingerprints: np.ndarray, lengths: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return of each recording the first one that sounds the same, int64 [n]; itself if none does.

    Copies share a block of 16 bits, by whose value and by length they are sorted side by side.

    Args:
        fingerprints: see data.quality.measures.fingerprint, uint64 [n].
        lengths: samples, int64 [n].
        known: whether there is a fingerprint, bool [n].
    """
    first = np.arange(len(fingerprints))
    ones = np.bitwise_count(fingerprints)
    chosen = np.flatnonzero(known & (ones >= LEAST_BITS) & (ones <= 64 - LEAST_BITS))
    for block in range(BLOCKS):
        values = fingerprints[chosen] >> np.uint64(16 * block) & np.uint64(0xFFFF)
        order = chosen[np.lexsort((lengths[chosen], values))]
        for apart in range(1, NEIGHBOURS + 1):
            for start in range(0, len(order) - apart, AT_A_TIME):
                end = min(start + AT_A_TIME, len(order) - apart)
                one, other = order[start:end], order[start + apart : end + apart]
                differ = np.bitwise_count(fingerprints[one] ^ fingerprints[other])
                longer = np.maximum(lengths[one], lengths[other])
                near = np.abs(lengths[one] - lengths[other]) <= LENGTHS * longer
                same = (differ <= BITS) & near
                for a, b in zip(one[same].tolist(), other[same].tolist(), strict=True):
                    roots = sorted((_root(first, a), _root(first, b)))
                    first[roots[1]] = roots[0]
    for number in np.flatnonzero(first != np.arange(len(first))).tolist():
        first[number] = _root(first, number)
    return first


def _root(first: np.ndarray, number: int) -> int:
    while first[number] != number:
        number = int(first[number])
    return number


def same_names(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that people would take for one: by case, width, spaces, underscores.

    Composed and decomposed letters and invisible characters are no difference to begin with, see
    data.names.visible_name.
    """
    groups = defaultdict(set)
    for name in names:
        groups[_plain(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _plain(name: str) -> str:
    """Return what is left of a name without case, width, and kinds of gaps."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    # 1_1 and 11 stay two
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", visible)).strip()


def warnings_of_names(names: Iterable[str]) -> list[str]:
    """Return a line for each group of names that are nearly the same."""
    return [
        f"speakers {', '.join(map(repr, group[:NAMES_SHOWN]))} are {len(group)} voices: if they "
        "are one, write the name in one way"
        for group in same_names(names)
    ]
