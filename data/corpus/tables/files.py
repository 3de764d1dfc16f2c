"""Tables in a temporary file: batches are appended, rows are read wherever they stand."""

import contextlib
import fcntl
import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

PREFIX = "bert_vits2_ray-table-"
SETTLED_S = 60.0  # from a file's making to its lock less time passes


class TableFile:
    """Rows that are appended to a temporary file, which goes with this object.

    Args:
        schema: columns of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.starts = [0]  # first row of each batch, and the number of rows
        self._file = tempfile.NamedTemporaryFile(prefix=PREFIX)  # noqa: SIM115
        fcntl.flock(self._file, fcntl.LOCK_EX)  # in use: see `remove_leftovers`
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._offsets: list[int] = []  # of the batches

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def path(self) -> str:
        """The file, for other processes of this node."""
        return self._file.name

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self._offsets)

    def batches(self, numbers: Iterable[int] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield batches, of which one `append` makes one; they are mapped, and none is held here.

        Args:
            numbers: which of them; None for all.
        """
        if not self.count:
            return
        with pa.memory_map(self.path) as file:
            content = file.read_buffer()
        for number in range(self.count) if numbers is None else numbers:
            messages = pa.ipc.MessageReader.open_stream(content.slice(self._offsets[number]))
            message = messages.read_next_message()
            if message.type == "schema":  # before the first batch
                message = messages.read_next_message()
            yield pa.ipc.read_record_batch(message, self.schema)

    @property
    def table(self) -> pa.Table:
        """All rows."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def append(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            OSError: the disk is full.
        """
        if not table.num_rows:
            return
        # what was sliced off, and chunks, stay behind
        (batch,) = table.select(self.schema.names).combine_chunks().to_batches()
        self._offsets.append(self._file.tell())
        try:
            self._writer.write_batch(batch)
            self._file.flush()
        except OSError as error:
            where = f"{self.path}, set TMPDIR to a folder with more room"
            raise OSError(error.errno, error.strerror, where) from error
        self.starts.append(len(self) + table.num_rows)

    def take(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """Return some rows, in the order that they are asked for; others are not looked at.

        Args:
            rows: int [n].
            columns: names of the columns to return.
        """
        numbers = np.searchsorted(self.starts, rows, "right") - 1  # of their batches
        order = np.argsort(numbers, kind="stable")
        bounds = np.flatnonzero(np.diff(numbers[order])) + 1
        found = [self._nothing.select(columns)]
        asked = np.split(order, bounds) if len(order) else []
        batches = self.batches(int(numbers[members[0]]) for members in asked)
        for members, batch in zip(asked, batches, strict=True):
            places = pa.array(rows[members] - self.starts[numbers[members[0]]])
            found.append(pa.Table.from_batches([batch.select(columns).take(places)]))
        return pa.concat_tables(found).combine_chunks().take(pa.array(np.argsort(order)))

    @property
    def _nothing(self) -> pa.Table:
        return self.schema.empty_table()


def remove_leftovers() -> None:
    """Remove the files of preparations that were killed; those in use are locked."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if time.time() - path.stat().st_mtime > SETTLED_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def read_batches(path: str, count: int) -> Iterator[pa.RecordBatch]:
    """Yield the first batches of a TableFile's file, mapped."""
    with pa.memory_map(path) as file:
        reader = pa.ipc.open_stream(file.read_buffer())
        for _ in range(count):
            yield reader.read_next_batch()


def hash64(text: str) -> int:
    """Return a number of 64 bits that follows from a text."""
    content = text.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def repeated(numbers: np.ndarray) -> np.ndarray:
    """Tell of each number whether it occurs more than once, bool [n]."""
    ordered = np.sort(numbers)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return np.isin(numbers, several)


def packed(table: pa.Table | pa.RecordBatch) -> pa.Table:
    """Return a table as one row with one cell, `block`, which Ray Data does not cut or join."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    content = sink.getvalue()
    ends = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.table({"block": pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, content])})


def unpacked(row: pa.Table) -> pa.Table:
    """Return the table of a row of `packed`."""
    return pa.ipc.open_stream(row.column("block")[0].as_buffer()).read_all()
