"""Micro-batches read from shards, and what becomes of rows that are damaged (`data.bad_rows`).

A row is damaged if its shard is missing, or if what was read is not what was written or cannot be
decoded. A store that does not answer says nothing about a row: it is asked again, and then the run
stops.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soundfile

from data.audio.recording import decode_flac
from data.config import DataConfig
from data.shards.manifest import Manifest
from data.shards.shard import ShardError, ShardReader
from data.stream.damage import BadRowsError
from data.stream.spec import StreamSpec, manifest_of


@dataclass(frozen=True)
class Loaded:
    """A micro-batch.

    Attributes:
        arrays: arrays of `collate`; none for no rows, or if there is an error.
        error: why the run cannot continue with it, or "".
        replaced: what was replaced by what and why, one line per row.
    """

    arrays: dict[str, np.ndarray]
    error: str = ""
    replaced: tuple[str, ...] = ()


class RowLoader:
    """Loads rows of a manifest. Not to be shared between threads."""

    def __init__(self, manifest: Manifest, cfg: DataConfig, min_frames: int):
        """Open the shards.

        Args:
            manifest: manifest of the shards.
            cfg: how rows are collated, and what becomes of damaged ones.
            min_frames: shorter utterances replace no other.
        """
        # It imports torch, which takes seconds: here, so that the first call does not wait for it,
        # and what comes behind it neither. What orders and splits the rows of a dataset imports
        # this module too, and does without.
        from data.stream.collate import collate

        self.collate = collate
        self.manifest = manifest
        self.cfg = cfg
        self.reader = ShardReader(cfg.shards)
        self.damaged: dict[int, str] = {}  # row -> what is wrong with it
        self.min_frames = min_frames

    def load(self, rows: np.ndarray) -> Loaded:
        """Load a micro-batch of manifest rows, int64 [b]; no rows give no arrays."""
        wanted = rows.tolist()
        if not wanted:
            return Loaded({})
        try:
            try:
                return Loaded(self._collated(wanted))
            except (ShardError, soundfile.SoundFileError):
                # any of them may be damaged: look at each
                used = [self.stand_in(row) for row in wanted]
            return Loaded(self._collated(used), replaced=tuple(self._replaced(wanted, used)))
        except (BadRowsError, OSError) as error:
            return Loaded({}, error=str(error))

    def text(self, row: int) -> str:
        """Return the text of an intact row, as the transcript writes it."""
        return self._read([row])[0]["text"]

    def stand_in(self, row: int) -> int:
        """Return the row itself if it is intact, else the nearest intact one of its split.

        The nearest are one before, one behind, two before, and so on. The manifest is sorted by
        length, so they are about as long. The answer follows from the row alone: it is the same
        whatever the micro-batch and whoever loads it.

        Raises:
            BadRowsError: `data.bad_rows` is `refuse`, or nothing is intact.
            OSError: a row cannot be read, which says nothing about what it holds.
        """
        if not self._is_damaged(row):
            return row
        if self.cfg.bad_rows == "refuse":
            raise BadRowsError(
                f"utterance {self._id(row)}: {self.damaged[row]}; or set data.bad_rows to replace, "
                "which takes the utterance nearest in length instead"
            )
        for other in self._neighbours(row):
            if not self._is_damaged(other):
                return other
        raise BadRowsError(f"no utterance like {self._id(row)} is intact: {self.damaged[row]}")

    def _neighbours(self, row: int) -> Iterator[int]:
        """Yield the usable rows of a row's split, the nearest first."""
        before = filter(self._is_usable(row), range(row - 1, -1, -1))
        behind = filter(self._is_usable(row), range(row + 1, len(self.manifest)))
        for pair in itertools.zip_longest(before, behind):
            yield from (other for other in pair if other is not None)

    def _is_usable(self, row: int) -> Callable[[int], bool]:
        """Return what tells whether an utterance may replace that of `row`."""
        # of its own split: validation utterances must not be trained on
        splits = self.manifest.columns.numbers("split")
        frames = self.manifest.columns.numbers("frames")
        return lambda other: splits[other] == splits[row] and frames[other] >= self.min_frames

    def _replaced(self, rows: Sequence[int], used: Sequence[int]) -> Iterator[str]:
        for row, other in zip(rows, used, strict=True):
            if row != other:
                problem = self.damaged[row]
                yield f"utterance {self._id(row)} ({problem}) is replaced by {self._id(other)}"

    def _is_damaged(self, row: int) -> bool:
        """Tell whether a row cannot be read or decoded."""
        if row not in self.damaged:
            try:
                decode_flac(self._read([row])[0]["audio"])
            except ShardError as error:
                self.damaged[row] = str(error)
            except soundfile.SoundFileError as error:
                self.damaged[row] = f"{self._place(row)} has no audio ({error})"
        return row in self.damaged

    def _collated(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        return self.collate(self._read(rows), rows, self.manifest.speakers, self.cfg)

    def _read(self, rows: Sequence[int]) -> list[dict]:
        found = self.reader.rows(self.manifest.located(rows))
        for row, key, read in zip(rows, self.manifest.values("key", rows), found, strict=True):
            if read["key"] != key:
                raise ShardError(f"{self._place(row)} is not the manifest's")
        return found

    def _place(self, row: int) -> str:
        """Return where a row of the manifest lies, for messages."""
        ((shard, number),) = self.manifest.places([row])
        return f"{self.cfg.shards}/{shard} row {number}"

    def _id(self, row: int) -> str:
        return self.manifest.names[[row]][0]


def row_loader(spec: StreamSpec) -> RowLoader:
    """Return a loader of the rows that a spec names."""
    return RowLoader(manifest_of(spec), spec.data, spec.cut.segment_frames)


class Rows(Protocol):
    """What loads micro-batches."""

    def load(self, rows: np.ndarray) -> Loaded:
        """Load a micro-batch of manifest rows, int64 [b]."""


MakeRows = Callable[[StreamSpec], Rows]
