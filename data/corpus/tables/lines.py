"""The usable lines of a transcript, which memory does not hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa

from data.corpus.ledger import Reject
from data.corpus.tables.files import TableFile
from data.rejected import Reason

AT_A_TIME = 4096  # lines that are Python objects at a time

COLUMNS = pa.schema(
    [("source", pa.string()), ("number", pa.int64())]
    + [(name, pa.string()) for name in ("id", "uri", "speaker", "language", "text", "split", "raw")]
)


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """A usable line.

    Attributes:
        source: transcript that it stands in.
        number: number of the line, or of the table's row, from 1.
        id: id of the utterance.
        uri: where the recording lies.
        speaker: name of the speaker.
        language: code of data.text.languages.
        text: what is said.
        split: one of data.shards.manifest.SPLITS; None if the transcript leaves it open.
        raw: the whole line as written; a row of Parquet as JSON.
    """

    source: str
    number: int
    id: str
    uri: str
    speaker: str
    language: str
    text: str
    split: str | None
    raw: str

    def reject(self, reason: Reason, detail: str) -> Reject:
        """Return this line as a reject."""
        return Reject(
            self.source, self.number, reason, detail, self.raw, self.speaker, self.language
        )


class Lines(Sequence[TranscriptLine]):
    """Lines in a file.

    Args:
        table: rows of COLUMNS.
        rows: which of them these are, in order; None for all.
    """

    def __init__(self, table: TableFile, rows: np.ndarray | None = None) -> None:
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> TranscriptLine: ...
    @overload
    def __getitem__(self, index: slice) -> "list[TranscriptLine]": ...
    def __getitem__(self, index: int | slice) -> "TranscriptLine | list[TranscriptLine]":
        if isinstance(index, int):
            return self._at(np.array([range(len(self))[index]]))[0]
        return self._at(np.arange(*index.indices(len(self))))

    def __iter__(self) -> Iterator[TranscriptLine]:
        for start in range(0, len(self), AT_A_TIME):
            yield from self[start : start + AT_A_TIME]

    def columns(self, lines: np.ndarray, names: list[str]) -> pa.Table:
        """Return columns of some lines."""
        return self.table.take(lines if self.rows is None else self.rows[lines], names)

    def words(self, name: str) -> list[str]:
        """Return the different values of a column, sorted."""
        found: set[str] = set()
        for start in range(0, len(self), AT_A_TIME):
            lines = np.arange(start, min(start + AT_A_TIME, len(self)))
            found.update(self.columns(lines, [name]).column(name).unique().to_pylist())
        return sorted(found)

    def _at(self, lines: np.ndarray) -> list[TranscriptLine]:
        return [TranscriptLine(**row) for row in self.columns(lines, COLUMNS.names).to_pylist()]
