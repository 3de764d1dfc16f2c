"""Where rows lie in shards: those that were there, and those that are being written."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.corpus.tables.rows import Rows
from data.corpus.tables.shard_rows import HeldRows
from data.rejected import Reason, RejectedError


class Places:
    """Shard and row of the shard of each row; 8 bytes of memory per row, 40 more per new one.

    Args:
        rows: the rows that are kept.
        held: rows of the shards that were there.

    Attributes:
        ended: row -> why it is rejected now.
    """

    def __init__(self, rows: Rows, held: HeldRows) -> None:
        self.shards = list(held.shards)
        self.ended: dict[int, RejectedError] = {}
        self.shard = np.full(len(rows), -1, np.int32)
        self.row = np.zeros(len(rows), np.int32)
        there = rows.held >= 0
        self.shard[there], self.row[there] = held.places(rows.held[there])
        order = np.argsort(rows.keys(rows.new), kind="stable")
        self._new = rows.new[order]
        self._keys = rows.keys(self._new)

    def add(self, written: pa.Table) -> None:
        """Note rows of data.corpus.writer.WRITTEN, of one shard, or rejected."""
        for row in written.filter(pc.is_valid(written.column("reason"))).to_pylist():
            (number,) = self.rows_of(pa.array([row["key"]]))
            self.ended[int(number)] = RejectedError(Reason(row["reason"]), row["detail"])
        written = written.filter(pc.is_valid(written.column("shard")))
        if not written.num_rows:
            return
        rows = self.rows_of(written.column("key"))
        self.shard[rows] = len(self.shards)
        self.row[rows] = written.column("row").to_numpy()
        self.shards.append(written.column("shard")[0].as_py())

    def rows_of(self, keys: pa.Array) -> np.ndarray:
        """Return the new rows that have these keys, int64 [n]."""
        wanted = keys.to_numpy(zero_copy_only=False).astype(self._keys.dtype)
        found = np.searchsorted(self._keys, wanted)
        assert (self._keys[found] == wanted).all(), "a shard holds a row that is not known"
        return self._new[found]

    def table(self) -> pa.Table:
        """Return `shard` and `row` of all rows, none of which has ended its process."""
        assert (self.shard >= 0).all(), "a row is in no shard"
        shards = pa.DictionaryArray.from_arrays(pa.array(self.shard), pa.array(self.shards))
        return pa.table({"shard": shards, "row": self.row})
