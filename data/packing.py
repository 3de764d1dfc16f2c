"""How a micro-batch's arrays travel from a loader to a worker: as the buffers they are in, without a copy."""

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.collate import ARRAYS

PLACE = ("step", "epoch", "slot")
SCHEMA = pa.schema(
    [(name, pa.int64()) for name in PLACE] + [("layout", pa.string())] + [(name, pa.large_binary()) for name in ARRAYS]
)


def pack(place: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> pa.Table:
    """One row of SCHEMA.

    Args:
        place: `step`, `epoch` and `slot` of the micro-batch.
        arrays: those of `collate`, all or some.
    """
    columns: list[pa.Array] = [pa.array([place[name]], pa.int64()) for name in PLACE]
    columns.append(pa.array([json.dumps({name: (a.dtype.str, a.shape) for name, a in arrays.items()})]))
    for name in ARRAYS:
        array = np.ascontiguousarray(arrays.get(name, np.zeros(0)))
        ends = pa.py_buffer(np.array([0, array.nbytes], np.int64))
        columns.append(pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(array)]))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def unpack(row: pa.Table) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """What `pack` was given; the arrays are views of the row's buffers, not to be written to."""
    place = {name: row.column(name)[0].as_py() for name in PLACE}
    arrays = {}
    for name, (dtype, shape) in json.loads(row.column("layout")[0].as_py()).items():
        buffer = row.column(name)[0].as_buffer()
        arrays[name] = np.frombuffer(buffer, dtype).reshape(shape)
    return place, arrays
