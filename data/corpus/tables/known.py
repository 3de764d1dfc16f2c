"""What records of earlier runs tell of lines."""

from collections.abc import Sequence

import numpy as np

from data.corpus.recipe import Recipe
from data.corpus.tables.files import TableFile, hash64
from data.corpus.tables.lines import TranscriptLine
from data.corpus.tables.records import LINE, asked
from data.corpus.tables.shard_rows import KEY, HeldRows

_LIGHT = ["version", "reason", "key", "audio", "samples"]


class Known:
    """Finds the records of lines and of recordings.

    Args:
        records: rows of RECORDS, later ones in place of earlier ones.
        recipe: recipe of the rows.
        circumstances: see data.corpus.tables.records.circumstances.
        held: rows of the shards.
    """

    def __init__(
        self, records: TableFile, recipe: Recipe, circumstances: dict[str, str], held: HeldRows
    ) -> None:
        self.records = records
        self.recipe = recipe
        self.circumstances = circumstances
        self.held = held
        self.by_line = _Index(records, "asked")
        self.by_recording = _Index(records, "recording")

    def of(
        self, lines: Sequence[TranscriptLine]
    ) -> tuple[list[str | None], list[str | None], np.ndarray]:
        """Return `version` and `key` of LINE, and the record, or -1, of each line."""
        nothing = np.full(len(lines), -1)
        if not len(self.records):
            return [None] * len(lines), [None] * len(lines), nothing
        rows = [{name: getattr(line, name) for name in LINE.names[2:7]} for line in lines]
        of_line = self.by_line.find([asked(self.circumstances, row) for row in rows])
        of_recording = self.by_recording.find([hash64(line.uri) for line in lines])
        places = np.where(of_line >= 0, of_line, of_recording)
        found = self.records.take(np.maximum(places, 0), _LIGHT).to_pylist()
        for row, record, place, own in zip(rows, found, places, of_line >= 0, strict=True):
            if place < 0:
                record.update(key=None, version=None, reason=None, samples=None)
            elif not own:
                record.update(key=self._key(row, record), reason=None, samples=None)

        keys = np.array([record["key"] or "" for record in found], KEY)
        in_shards = self.held.find(keys) >= 0
        for record, there in zip(found, in_shards, strict=True):
            # of a row that was in a shard when it was surveyed there is no more than its key
            if not there and record["reason"] is None and record["samples"] is None:
                record.update(key=None, version=None)
        return [r["version"] for r in found], [r["key"] for r in found], places

    def _key(self, row: dict[str, str], record: dict) -> str | None:
        """Return the key of a line whose recording another line had, or other settings."""
        if record["audio"] is None:
            return None
        return self.recipe.key_of(
            row["id"], row["text"], row["language"], row["speaker"], record["audio"]
        )


class _Index:
    """Rows by a number; 16 bytes of memory each."""

    def __init__(self, records: TableFile, column: str) -> None:
        numbers = [batch.column(column).to_numpy() for batch in records.batches()]
        values = np.concatenate([np.zeros(0, np.uint64), *numbers])
        self.rows = np.argsort(values, kind="stable")
        self.values = values[self.rows]

    def find(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the last row of each number, -1 where there is none."""
        wanted = np.array(numbers, np.uint64)
        found = np.searchsorted(self.values, wanted, "right") - 1
        return np.where(self.values[found] == wanted, self.rows[found], -1)
