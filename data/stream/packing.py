"""A micro-batch's arrays on their way from a loader to a worker, as buffers without a copy."""

import json
from collections.abc import Mapping
from functools import cache

import numpy as np
import pyarrow as pa

from data.stream.loading import Loaded

PLACE = ("step", "slot")


@cache
def schema() -> pa.Schema:
    """Return the columns of a row."""
    from data.stream.collate import ARRAYS  # it imports torch, and only loaders pack

    return pa.schema(
        [(name, pa.int64()) for name in PLACE]
        + [("layout", pa.string()), ("error", pa.string()), ("replaced", pa.list_(pa.string()))]
        + [(name, pa.large_binary()) for name in ARRAYS]
    )


def pack(place: Mapping[str, int], loaded: Loaded) -> pa.Table:
    """Return a micro-batch as one row of `schema`.

    Args:
        place: `step` and `slot` of the micro-batch.
        loaded: arrays of `collate`, all or some, and what was wrong.
    """
    layout = {name: (array.dtype.str, array.shape) for name, array in loaded.arrays.items()}
    columns: list[pa.Array] = [pa.array([place[name]], pa.int64()) for name in PLACE]
    columns += [
        pa.array([json.dumps(layout)]),
        pa.array([loaded.error]),
        pa.array([list(loaded.replaced)], pa.list_(pa.string())),
    ]
    arrays = schema().names[len(columns) :]
    columns += [_binary(loaded.arrays.get(name, np.zeros(0))) for name in arrays]
    return pa.Table.from_arrays(columns, schema=schema())


def step_of(row: pa.Table) -> int:
    """Return the step of a row of `pack`."""
    return row.column("step")[0].as_py()


def _binary(array: np.ndarray) -> pa.Array:
    """Return a binary column of one row that holds an array's own buffer."""
    array = np.ascontiguousarray(array)
    ends = pa.py_buffer(np.array([0, array.nbytes], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(array)])


def unpack(row: pa.Table) -> tuple[dict[str, int], Loaded]:
    """Return what `pack` was given.

    The arrays are views of the row's buffers: do not write to them.
    """
    place = {name: row.column(name)[0].as_py() for name in PLACE}
    arrays = {}
    for name, (dtype, shape) in json.loads(row.column("layout")[0].as_py()).items():
        buffer = row.column(name)[0].as_buffer()
        arrays[name] = np.frombuffer(buffer, dtype).reshape(shape)

    error = row.column("error")[0].as_py()
    replaced = tuple(row.column("replaced")[0].as_py())
    return place, Loaded(arrays, error, replaced)
