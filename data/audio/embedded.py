"""Recordings that lie inside of a Parquet file, in a column of {bytes, path} as Hugging Face's."""

from functools import lru_cache
from urllib.parse import quote, unquote

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
    try:
        with pq.ParquetFile(Source(file)) as parquet:
            group, first = _group_of(parquet.metadata, row)
        # rows are mostly asked for in their order
        content = _group(file, content_version(file), f"{column}.bytes", group)
    except pa.ArrowException as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, f"{file} cannot be read: {error}") from error
    found = content[row - first].as_py()
    if found is None:
        raise RejectedError(Reason.MISSING_AUDIO, f"row {row + 1} of {file} holds no recording")
    return found


def _parts(uri: str) -> tuple[str, str, int]:
    column, row, file = uri.removeprefix(SCHEME).split("/", 2)
    return file, unquote(column), int(row)


def _group_of(metadata: pq.FileMetaData, row: int) -> tuple[int, int]:
    """Return the row group that holds a row, and the group's first row."""
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < first + rows:
            return group, first
        first += rows
    raise pa.ArrowInvalid(f"it has {first} rows")


@lru_cache(maxsize=1)
def _group(file: str, version: str | None, leaf: str, group: int) -> pa.ChunkedArray:
    """Return the recordings of a row group; `version` changes with the file."""
    with pq.ParquetFile(Source(file)) as parquet:
        return (
            parquet.read_row_group(group, columns=[leaf]).column(0).combine_chunks().field("bytes")
        )
