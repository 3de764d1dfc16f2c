"""How a micro-batch's arrays travel from a loader to a worker: as the buffers they are in, without a copy."""

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from data.stream.collate import ARRAYS
from data.stream.loading import Loaded

PLACE = ("step", "epoch", "slot")
SCHEMA = pa.schema(
    [(name, pa.int64()) for name in PLACE]
    + [("layout", pa.string()), ("error", pa.string()), ("replaced", pa.list_(pa.string()))]
    + [(name, pa.large_binary()) for name in ARRAYS]
)


def pack(place: Mapping[str, int], loaded: Loaded) -> pa.Table:
    """One row of SCHEMA.

    Args:
        place: `step`, `epoch` and `slot` of the micro-batch.
        loaded: arrays of `collate`, all or some, and what was wrong.
    """
    columns: list[pa.Array] = [pa.array([place[name]], pa.int64()) for name in PLACE]
    columns.append(
        pa.array([json.dumps({name: (a.dtype.str, a.shape) for name, a in loaded.arrays.items()})])
    )
    columns += [pa.array([loaded.error]), pa.array([list(loaded.replaced)], pa.list_(pa.string()))]
    for name in ARRAYS:
        array = np.ascontiguousarray(loaded.arrays.get(name, np.zeros(0)))
        ends = pa.py_buffer(np.array([0, array.nbytes], np.int64))
        columns.append(
            pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(array)])
        )
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def unpack(row: pa.Table) -> tuple[dict[str, int], Loaded]:
    """What `pack` was given; the arrays are views of the row's buffers, not to be written to."""
    place = {name: row.column(name)[0].as_py() for name in PLACE}
    arrays = {}
    for name, (dtype, shape) in json.loads(row.column("layout")[0].as_py()).items():
        buffer = row.column(name)[0].as_buffer()
        arrays[name] = np.frombuffer(buffer, dtype).reshape(shape)
    return place, Loaded(
        arrays, row.column("error")[0].as_py(), tuple(row.column("replaced")[0].as_py())
    )
