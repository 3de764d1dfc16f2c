"""Recordings that lie inside of a Parquet file, in a column of {bytes, path} as Hugging Face's."""

from functools import lru_cache
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.files import Source, content_version
from data.rejected import Reason, RejectedError

SCHEME = "embedded://"


def embedded_uri(file: str, column: str, row: int) -> str:
    """Return what names a recording of a file: row from 0."""
    return f"{SCHEME}{quote(column, safe='')}/{row}/{file}"


def is_embedded(uri: str) -> bool:
    """Tell whether a URI is one of `embedded_uri`."""
    return uri.startswith(SCHEME)


def container_of(uri: str) -> str:
    """Return the file that holds a recording; any other URI is its own."""
    return _parts(uri)[0] if is_embedded(uri) else uri


def row_of(uri: str) -> int:
    """Return the row of a recording in its file, from 0."""
    return _parts(uri)[2]


def read_embedded(uri: str) -> bytes:
    """Return the bytes of a recording.

    Raises:
        RejectedError: unreadable_audio, or missing_audio if the row holds none.
        OSError: see data.files.read_file.
    """
    file, column, row = _parts(uri)
    version = content_version(file)
    try:
        _, starts = _opened(file, version)
        if row >= starts[-1]:
            raise pa.ArrowInvalid(f"it has {starts[-1]} rows")
        group = int(np.searchsorted(starts, row, "right")) - 1
        # rows are mostly asked for in their order
        content = _group(file, version, f"{column}.bytes", group)
    except pa.ArrowException as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, f"{file} cannot be read: {error}") from error
    found = content[row - starts[group]].as_py()
    if found is None:
        raise RejectedError(Reason.MISSING_AUDIO, f"row {row + 1} of {file} holds no recording")
    return found


def _parts(uri: str) -> tuple[str, str, int]:
    column, row, file = uri.removeprefix(SCHEME).split("/", 2)
    return file, unquote(column), int(row)


@lru_cache(maxsize=1)
def _opened(file: str, version: str | None) -> tuple[pq.ParquetFile, np.ndarray]:
    """Return a file that stays open, and the first row of each of its row groups and of none.

    A footer of many row groups takes long to read. `version` changes with the file.
    """
    parquet = pq.ParquetFile(Source(file))
    footer = parquet.metadata
    rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    return parquet, np.cumsum([0, *rows])


@lru_cache(maxsize=1)
def _group(file: str, version: str | None, leaf: str, group: int) -> pa.ChunkedArray:
    """Return the recordings of a row group; `version` changes with the file."""
    parquet, _ = _opened(file, version)
    return parquet.read_row_group(group, columns=[leaf]).column(0).combine_chunks().field("bytes")
