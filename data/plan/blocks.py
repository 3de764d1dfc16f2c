"""Utterances that stay together in an epoch's order, because they lie side by side in the shards.

Shards are written in the order of `strip_order`. An epoch's plan cuts the same order into blocks of
BLOCK and permutes these, so that one request reads a block. Where blocks begin differs from epoch
to epoch, and with it who is with whom.
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
    strip = np.floor(np.log(np.maximum(lengths, 1)) / width + shift).astype(np.int64)
    # snake: the last of a strip and the first of the next have texts of like length
    descending = (strip % 2).astype(bool)
    return np.lexsort((np.where(descending, -phones, phones), strip))


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
    def of_shards(cls, frames: np.ndarray, phones: np.ndarray, size: int, epoch: int) -> "Blocks":
        """Return blocks of `size` in the order of the shards; the first one may be smaller.

        Args:
            frames: spectrogram frames of each utterance, int [n].
            phones: phones of each, int [n].
            size: utterances of a block.
            epoch: number of the epoch, from 0. Two that follow each other part their blocks in the
                middle, so that as few as possible are together in both.
        """
        first = 1 + epoch * (size // 2) % size
        starts = np.concatenate([[0], np.arange(first, len(frames), size)])
        return cls(strip_order(frames, phones), starts)

    def most(self, lengths: np.ndarray) -> np.ndarray:
        """Return the largest of each block's lengths, [K]."""
        return np.maximum.reduceat(lengths[self.members], self.starts)

    def expanded(self, order: np.ndarray) -> np.ndarray:
        """Return the utterances, int64 [n], of blocks in an order, int64 [K]."""
        sizes = np.diff(self.starts, append=len(self.members))[order]
        ends = np.cumsum(sizes)
        first = np.repeat(self.starts[order] - (ends - sizes), sizes)
        return self.members[first + np.arange(len(self.members))]
