"""Micro-batches read from shards, and what becomes of rows that are damaged (`data.bad_rows`).

A row is damaged where its shard is missing, where what was read is not what was written, or cannot
be decoded. A store that does not answer says nothing of a row: it is asked again, and then the run
stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from data.audio.recording import decode_flac
from data.config import DataConfig
from data.shards.manifest import Manifest
from data.shards.shard import ShardError, ShardReader
from data.stream.collate import TtsBatch, collate


class BadRowsError(ValueError):
    """Rows that cannot be read, on all ranks alike."""


@dataclass(frozen=True)
class Loaded:
    """A micro-batch.

    Attributes:
        arrays: as `collate` returns them; empty for no rows, and where there is an error.
        error: why the run cannot go on with it, or nothing.
        replaced: what was replaced by what and why, a line a row.
    """

    arrays: dict[str, np.ndarray]
    error: str = ""
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Utterance:
    """One of a set that is evaluated.

    Attributes:
        number: within the set.
        row: of the manifest.
        batch: it alone.
        text: as the transcript writes it.
        language: of data.config.LANGUAGES.
    """

    number: int
    row: int
    batch: TtsBatch
    text: str
    language: str


class RowLoader:
    """Loads rows of a manifest; not to be shared between threads."""

    def __init__(self, manifest: Manifest, cfg: DataConfig, min_frames: int):
        """Open the shards.

        Args:
            manifest: of the shards.
            cfg: how rows are collated, and what becomes of damaged ones.
            min_frames: shorter utterances take nobody's place.
        """
        self.manifest, self.cfg = manifest, cfg
        self.reader = ShardReader(cfg.shards)
        self.damaged: dict[int, str] = {}  # row -> why; found once
        long_enough = manifest.column("frames") >= min_frames
        self.usable = {
            split: rows[long_enough[rows]]
            for split in ("train", "validation")
            if len(rows := manifest.rows(split))
        }

    def load(self, rows: np.ndarray) -> Loaded:
        """A micro-batch of manifest rows, int64 [b]; nothing of none."""
        if len(rows) == 0:
            return Loaded({})
        try:
            try:
                return Loaded(self._collated(rows.tolist()))
            except (ShardError, soundfile.SoundFileError):
                used = [self.stand_in(row) for row in rows.tolist()]
            lines = [
                f"utterance {self._id(row)} ({self.damaged[row]}) is replaced by {self._id(other)}"
                for row, other in zip(rows.tolist(), used, strict=True)
                if row != other
            ]
            return Loaded(self._collated(used), replaced=tuple(lines))
        except (BadRowsError, OSError) as error:
            return Loaded({}, error=str(error))

    def text(self, row: int) -> str:
        """What an intact row says, as the transcript writes it."""
        return self._read([row])[0]["text"]

    def stand_in(self, row: int) -> int:
        """The row itself if it is intact, else the nearest intact one of its split: one before, one behind, two before.

        The manifest is sorted by length, so that both are about as long. The answer follows from
        the row alone: it is the same whatever the micro-batch and whoever loads it.

        Raises:
            BadRowsError: `data.bad_rows` is `refuse`, or nothing is intact.
            OSError: a row cannot be read, which says nothing of what it holds.
        """
        if not self._is_damaged(row):
            return row
        if self.cfg.bad_rows == "refuse":
            raise BadRowsError(
                f"utterance {self._id(row)}: {self.damaged[row]}; or set data.bad_rows to replace, which takes the "
                "utterance nearest in length for it"
            )
        others = self.usable[self.manifest.column("split")[row]]
        at = int(np.searchsorted(others, row))
        for distance in range(1, len(others)):
            for other in (at - distance, at + distance):
                if 0 <= other < len(others) and not self._is_damaged(int(others[other])):
                    return int(others[other])
        raise BadRowsError(f"no utterance like {self._id(row)} is intact: {self.damaged[row]}")

    def _is_damaged(self, row: int) -> bool:
        """Whether a row cannot be read or decoded."""
        if row not in self.damaged:
            try:
                decode_flac(self._read([row])[0]["audio"])
            except ShardError as error:
                self.damaged[row] = str(error)
            except soundfile.SoundFileError as error:
                place = self._places([row])[0]
                self.damaged[row] = (
                    f"{self.cfg.shards}/{place['shard']} row {place['row']} has no audio ({error})"
                )
        return row in self.damaged

    def _collated(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        return collate(self._read(rows), rows, self.manifest.speakers, self.cfg)

    def _read(self, rows: Sequence[int]) -> list[dict]:
        wanted = self._places(rows)
        found = self.reader.rows([(own["shard"], own["row"]) for own in wanted])
        for own, read in zip(wanted, found, strict=True):
            if read["key"] != own["key"]:
                raise ShardError(
                    f"{self.cfg.shards}/{own['shard']} row {own['row']} is not the manifest's"
                )
        return found

    def _places(self, rows: Sequence[int]) -> list[dict]:
        return self.manifest.table.select(["shard", "row", "key"]).take(list(rows)).to_pylist()

    def _id(self, row: int) -> str:
        return self.manifest.column("id")[row]
