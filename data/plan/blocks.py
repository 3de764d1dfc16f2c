"""Utterances that stay together in an epoch's order, because they lie side by side in the shards.

Shards are written in the order of `strip_order`. An epoch's plan cuts the same order into blocks of
BLOCK and permutes these, so that one request reads a block. Where blocks begin differs from epoch
to epoch, and with it who is with whom.

Each preparation that adds to a corpus writes shards of its own in that order. So blocks are formed
of the utterances of one of them, a generation.
"""

from dataclasses import dataclass

import numpy as np

BLOCK = 5
# shares of length: as much padding as with strips of 2 % of single utterances
STRIP_OF_SHARDS = 0.01
STRIP_OF_BLOCKS = 0.0185


def in_strips(lengths: np.ndarray, phones: np.ndarray, width: float, shift: float) -> np.ndarray:
    """Return an order, int64 [n], by strips of nearly equal lengths, and within these by phones.

    Args:
        lengths: frames of each, [n].
        phones: phones of each, [n].
        width: lengths of a strip differ by less than about this share.
        shift: where strips begin, as a share of their width.
    """
    strip = _strips(lengths, width, shift)
    # snake: the last of a strip and the first of the next have texts of like length
    descending = (strip % 2).astype(bool)
    return np.lexsort((np.where(descending, -phones, phones), strip))


def _strips(lengths: np.ndarray, width: float, shift: float) -> np.ndarray:
    """Return the number of each one's strip, int64 [n]; see `in_strips`."""
    return np.floor(np.log(np.maximum(lengths, 1)) / width + shift).astype(np.int64)


def strip_order(frames: np.ndarray, phones: np.ndarray) -> np.ndarray:
    """Return the order of utterances in the shards, int64 [n]; equals stay as they come.

    Args:
        frames: spectrogram frames of each, int [n].
        phones: phones of each, with or without blanks, int [n].
    """
    return in_strips(frames, phones.astype(np.int64), STRIP_OF_SHARDS, 0.0)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Utterances in blocks.

    Attributes:
        members: utterances, block after block, int64 [n].
        starts: where blocks begin in `members`, int64 [K].
    """

    members: np.ndarray
    starts: np.ndarray

    @classmethod
    def of_shards(
        cls,
        frames: np.ndarray,
        phones: np.ndarray,
        size: int,
        epoch: int,
        generations: np.ndarray | None = None,
    ) -> "Blocks":
        """Return blocks of `size` in the order of the shards; the first one may be smaller.

        With generations no block holds utterances of two, or of two strips: an addition may be
        small, so that its neighbours differ much in length. Blocks at such borders are smaller.

        Args:
            frames: spectrogram frames of each utterance, int [n].
            phones: phones of each, int [n].
            size: utterances of a block.
            epoch: number of the epoch, from 0. Two that follow each other part their blocks in the
                middle, so that as few as possible are together in both.
            generations: number of the preparation that wrote each, int [n]; None: all of one.
        """
        order = strip_order(frames, phones)
        first = 1 + epoch * (size // 2) % size
        starts = np.concatenate([[0], np.arange(first, len(frames), size)])
        if generations is not None:
            order = order[np.argsort(generations[order], kind="stable")]
            strips = _strips(frames[order], STRIP_OF_SHARDS, 0.0)
            differ = (np.diff(strips) != 0) | (np.diff(generations[order]) != 0)
            starts = np.union1d(starts, 1 + np.flatnonzero(differ))
        return cls(order, starts)

    def most(self, lengths: np.ndarray) -> np.ndarray:
        """Return the largest of each block's lengths, [K]."""
        return np.maximum.reduceat(lengths[self.members], self.starts)

    def expanded(self, order: np.ndarray) -> np.ndarray:
        """Return the utterances, int64 [n], of blocks in an order, int64 [K]."""
        sizes = np.diff(self.starts, append=len(self.members))[order]
        ends = np.cumsum(sizes)
        first = np.repeat(self.starts[order] - (ends - sizes), sizes)
        return self.members[first + np.arange(len(self.members))]
