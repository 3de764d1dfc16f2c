"""The rows that are kept, in the order in which they are written; 40 bytes of memory each."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.corpus.tables.lines import Lines
from data.corpus.tables.surveyed import Surveyed

AT_A_TIME = 4096


@dataclass(frozen=True, eq=False)
class Rows:
    """Lines that are kept.

    Attributes:
        lines: all lines of the transcript.
        surveyed: what is known of each.
        line: their lines, int64 [rows].
        held: rows of HeldRows, or -1 for those that no shard holds, int64 [rows].
        samples: samples of audio, int64 [rows].
        frames: frames, int32 [rows].
        phones: phones, without blanks, int32 [rows].
    """

    lines: Lines
    surveyed: Surveyed
    line: np.ndarray
    held: np.ndarray
    samples: np.ndarray
    frames: np.ndarray
    phones: np.ndarray

    def __len__(self) -> int:
        return len(self.line)

    @property
    def new(self) -> np.ndarray:
        """The rows that no shard holds, int64 [n], ascending."""
        return np.flatnonzero(self.held < 0)

    def keys(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return keys of rows, as numpy holds them."""
        return self.surveyed.key[self.line[rows]]

    def columns(self, rows: np.ndarray | slice, names: list[str]) -> pa.Table:
        """Return columns of the transcript of rows."""
        return self.lines.columns(self.line[rows], names)

    def in_parts(self) -> Iterator[slice]:
        """Yield parts of all rows, to look at few at a time."""
        for start in range(0, len(self), AT_A_TIME):
            yield slice(start, start + AT_A_TIME)

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Return a column of the transcript as numbers int32 [rows], and the texts they number."""
        numbers: dict[str, int] = {}
        codes = np.zeros(len(self), np.int32)
        for part in self.in_parts():
            values: list[str] = self.columns(part, [name]).column(name).to_pylist()
            codes[part] = [numbers.setdefault(value, len(numbers)) for value in values]
        return codes, list(numbers)
