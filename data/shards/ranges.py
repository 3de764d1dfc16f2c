"""Where rows lie within the files of their shards, and which of them one request reads.

A row's range of bytes is its row group, and behind it a footer of its own: a Parquet file of one
row, but for the magic at its beginning. So a row needs nothing else of the shard.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"
_LENGTH = 4  # bytes that say how long the footer is, at the end


class Range(NamedTuple):
    """Where a row lies in the file of its shard.

    Attributes:
        offset: its first byte.
        length: number of its bytes.
        checksum: their CRC-32.
    """

    offset: int
    length: int
    checksum: int


class Place(NamedTuple):
    """A row of a shard.

    Attributes:
        shard: path below the manifest's folder.
        row: row of that shard.
        range: its bytes; None in shards that older code wrote.
    """

    shard: str
    row: int
    range: Range | None = None


@dataclass(frozen=True)
class Span:
    """Bytes of a shard that one request reads.

    Attributes:
        shard: path below the manifest's folder.
        begin: first byte.
        end: byte behind the last one.
        places: the rows in it, which have ranges.
    """

    shard: str
    begin: int
    end: int
    places: tuple[Place, ...]


def joined(places: Sequence[Place]) -> list[Span]:
    """Return what to read for rows that have ranges: those that adjoin are read together."""
    spans: list[Span] = []
    shard, begin, end, members = "", 0, 0, list[Place]()
    for place in sorted(set(places), key=_where):
        assert place.range is not None
        if members and (place.shard != shard or place.range.offset != end):
            spans.append(Span(shard, begin, end, tuple(members)))
            members = []
        if not members:
            shard, begin = place.shard, place.range.offset
        end = place.range.offset + place.range.length
        members.append(place)
    return [*spans, Span(shard, begin, end, tuple(members))] if members else spans


def _where(place: Place) -> tuple[str, int]:
    assert place.range is not None
    return place.shard, place.range.offset


def alone(row: pa.Table, length: int, **options: Any) -> tuple[bytes, bytes]:
    """Return a row's row group as any file has it, and what follows it in its range.

    Args:
        row: the row.
        length: bytes of the row group.
        options: how it is written, for pq.ParquetWriter.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, row.schema, store_schema=False, **options) as writer:
        writer.write_table(row)
    content = sink.getvalue()
    end = len(MAGIC) + length
    packed = zlib.compress(content[end:])
    return content[len(MAGIC) : end], packed + len(packed).to_bytes(_LENGTH, "little")


def row_of(content: memoryview) -> dict[str, Any]:
    """Return a row, given the bytes of its range.

    Raises:
        pa.ArrowException, OSError, zlib.error: they are no row.
    """
    footer = len(content) - _LENGTH - int.from_bytes(content[-_LENGTH:], "little")
    file = b"".join((MAGIC, content[:footer], zlib.decompress(content[footer:-_LENGTH])))
    found = pq.ParquetFile(pa.BufferReader(file))
    return found.read_row_group(0, use_threads=False).to_pylist()[0]
