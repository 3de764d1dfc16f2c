"""Rows that shards hold already, also those that an interrupted run wrote."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.corpus.tables.files import TableFile
from data.quality.measures import MEASURES

KEY = "S32"  # a row's key, as numpy holds it
_ROWS = pa.schema([("phones", pa.string()), *MEASURES])
_PLACE = np.dtype(
    [("shard", "i4"), ("row", "i4"), ("samples", "i8"), ("phone_count", "i4"), ("at", "i8")]
)


class HeldRows:
    """The rows of shards, found by key; 64 bytes of memory per row.

    Args:
        shards: names of shards, and their rows as data.shards.shard.read_index returns them.
    """

    def __init__(self, shards: Iterable[tuple[str, Sequence[Mapping[str, Any]]]] = ()) -> None:
        self.shards: list[str] = []
        self._rows = TableFile(_ROWS)
        keys, places = [np.zeros(0, KEY)], [np.zeros(0, _PLACE)]
        for shard, entries in shards:
            phones = [entry["phones"] for entry in entries]
            found = np.zeros(len(entries), _PLACE)
            found["shard"] = len(self.shards)
            found["row"] = np.arange(len(entries))
            found["samples"] = [entry["samples"] for entry in entries]
            found["phone_count"] = [text.count(" ") + 1 for text in phones]
            found["at"] = np.arange(len(entries)) + len(self._rows)
            keys.append(np.array([entry["key"] for entry in entries], KEY))
            places.append(found)
            rows = [{"phones": entry["phones"], **entry.get("quality", {})} for entry in entries]
            self._rows.append(pa.Table.from_pylist(rows, schema=_ROWS))
            self.shards.append(shard)
        self._sort(np.concatenate(keys), np.concatenate(places))

    def _sort(self, keys: np.ndarray, places: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._places = places[order]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return numbers of rows by key, int64 [n]; -1 where no shard holds it.

        Args:
            keys: KEY [n].
        """
        if not len(self):
            return np.full(len(keys), -1)
        # of two rows of a key the later shard's, as ever
        found = np.searchsorted(self._keys, keys, "right") - 1
        return np.where(self._keys[found] == keys, found, -1)

    def samples(self, rows: np.ndarray) -> np.ndarray:
        """Return the samples of rows, int64 [n]; 0 of row -1."""
        return self._values("samples", rows)

    def phones(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of phones of rows, int32 [n]; 0 of row -1."""
        return self._values("phone_count", rows)

    def measures(self, rows: np.ndarray) -> pa.Table:
        """Return MEASURES of rows, null of row -1 and of those that older code wrote."""
        known = np.flatnonzero(rows >= 0)
        found = self._rows.take(self._places["at"][rows[known]], MEASURES.names)
        places = np.full(len(rows), -1)
        places[known] = np.arange(len(known))
        return found.take(pa.array(places, mask=places < 0))

    def _values(self, name: str, rows: np.ndarray) -> np.ndarray:
        if not len(self):
            return np.zeros(len(rows), _PLACE[name])
        return np.where(rows < 0, 0, self._places[name][rows])

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number in `shards`, and the row of the shard, of rows; int32 [n] each."""
        places = self._places[rows]
        return places["shard"], places["row"]

    def count_phones(self, rows: np.ndarray) -> Counter[str]:
        """Return how often each phone occurs in rows."""
        phones = self._rows.take(self._places["at"][rows], ["phones"]).column("phones")
        return counted(pc.list_flatten(pc.split_pattern(phones, " ")))


def counted(phones: pa.ChunkedArray) -> Counter[str]:
    """Return how often each text occurs."""
    return Counter(
        {entry["values"]: entry["counts"] for entry in phones.value_counts().to_pylist()}
    )
