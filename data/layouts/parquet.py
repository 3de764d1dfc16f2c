"""Tables of Parquet: our columns, or those of others, whose recordings may lie inside."""

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.audio.embedded import embedded_uri
from data.layouts.layout import FIELDS, OPTIONAL, Layout, columns_of

ROWS_AT_A_TIME = 4096


def parquet_rows(
    source: str, content: bytes, layout: Layout
) -> Iterator[tuple[int, str, dict[str, Any] | str]]:
    """Yield number, row as JSON and fields of each row.

    Raises:
        ValueError: the file is not readable Parquet, or lacks a column.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        if layout.form == "table":
            rows = _rows_of_others(source, file)
        else:
            missing = [name for name in FIELDS if name not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"the transcript {source} has no column {', '.join(missing)}")
            columns = [name for name in (*FIELDS, *OPTIONAL) if name in file.schema_arrow.names]
            rows = _rows(file, columns)
        for number, row in enumerate(rows, start=1):
            yield number, json.dumps(row, ensure_ascii=False, default=str), row
    except pa.ArrowException as error:
        raise ValueError(f"the transcript {source} is no readable Parquet file: {error}") from error


def column_names(content: bytes) -> list[str]:
    """Return the columns of a file; none if it is not readable."""
    try:
        return pq.read_schema(io.BytesIO(content)).names
    except pa.ArrowException:
        return []


def _rows(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
        yield from batch.to_pylist()


def _rows_of_others(source: str, file: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    """Yield fields of rows whose columns have other names, or hold recordings."""
    columns = columns_of(file.schema_arrow.names)
    audio = next((field.name for field in file.schema_arrow if _holds_audio(field)), None)
    if audio is not None:
        columns["path"] = audio
    missing = [name for name in ("path", "text") if name not in columns]
    if missing:
        raise ValueError(f"the transcript {source} has no column {', '.join(missing)}")
    # without the recordings
    read = [f"{name}.path" if name == audio else name for name in columns.values()]
    inside = audio is not None and not _all_null(file, f"{audio}.bytes")
    for number, row in enumerate(_rows(file, read)):
        fields = {field: row.get(column) for field, column in columns.items()}
        if audio is not None:
            name = (fields["path"] or {}).get("path")
            fields["path"] = embedded_uri(source, audio, number) if inside else name
        yield fields


def _holds_audio(field: pa.Field) -> bool:
    return pa.types.is_struct(field.type) and "bytes" in field.type.names


def _all_null(file: pq.ParquetFile, leaf: str) -> bool:
    """Tell whether a column is known to hold nothing."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [
        group.column(number)
        for group in groups
        for number in range(group.num_columns)
        if group.column(number).path_in_schema == leaf
    ]
    counted = (chunk.statistics for chunk in chunks)
    nulls = [stats.null_count if stats and stats.has_null_count else 0 for stats in counted]
    return bool(chunks) and sum(nulls) == file.metadata.num_rows
