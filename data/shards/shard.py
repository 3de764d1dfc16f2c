"""Shards: immutable Parquet files, named by their content, with what training reads.

One row group per row: reading a row reads that row and the file's footer (about 1 KB per row),
nothing else. Where the manifest tells its range (data.shards.ranges), not even the footer, and
neighbours are read together. FLAC, BERT features and spectrograms are stored as they are. A row's
checksum is verified whenever it is read: the manifest's of its range, or else its own. The footer
holds the schema's version and an index of the rows.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.files import (
    PART_SUFFIX,
    Source,
    below,
    is_uri,
    keep_trying,
    located,
    put_file,
    reachable,
    read_part,
)
from data.shards.manifest import RANGE_COLUMNS, SCHEMA_VERSION, SHARD_COLUMNS
from data.shards.ranges import Place, Range, Span, alone, joined, row_of

FOLDER = "shards"
FOOTERS_AT_A_TIME = 16
_BINARY = ("audio", "bert", "spec")
_CHECKED = tuple(name for name in SHARD_COLUMNS.names if name != "checksum")
# entries of the footer
_VERSION = "schema_version"
_INDEX = "rows"
_RANGES = "ranges"
# FLAC, float16 features and spectrograms do not shrink
_WRITTEN: dict[str, Any] = {
    "compression": {n: "none" if n in _BINARY else "zstd" for n in SHARD_COLUMNS.names},
    "use_dictionary": False,  # row groups of one row repeat nothing
    "write_statistics": False,
}


class ShardError(ValueError):
    """A shard is missing or damaged."""


def row_checksum(row: Mapping[str, Any]) -> str:
    """Return a checksum of all that a row holds, but the checksum itself.

    Args:
        row: values of SHARD_COLUMNS.
    """
    digest = hashlib.blake2b(digest_size=16)
    plain = [row[name] for name in _CHECKED if name not in _BINARY]
    digest.update(json.dumps(plain, ensure_ascii=False).encode())
    for name in _BINARY:
        digest.update(len(row[name]).to_bytes(8, "little"))
        digest.update(row[name])
    return digest.hexdigest()


def write_shard(uri: str, rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Write rows as one shard.

    They are taken one at a time, so that memory holds the file and one row.

    Args:
        uri: folder of the manifest.
        rows: values of SHARD_COLUMNS, and `quality`, which only the footer's index keeps;
            `checksum` is filled in here, other columns are left out.

    Returns:
        The shard's path below `uri`; equal rows give equal paths. None if there are no rows, and no
        file.

    Raises:
        OSError: it cannot be written.
    """
    digest = hashlib.blake2b(digest_size=16)
    index: list[dict] = []
    ranges: list[Range] = []
    file = io.BytesIO()
    sink = pa.PythonFile(file, mode="w")  # counts the bytes of all who write to it
    with pq.ParquetWriter(sink, SHARD_COLUMNS, **_WRITTEN) as writer:
        for row in rows:
            checked = {name: row[name] for name in _CHECKED} | {"checksum": row_checksum(row)}
            digest.update(checked["checksum"].encode())
            phones = " ".join(row["phones"])
            entry = {"key": row["key"], "samples": row["samples"], "phones": phones}
            index.append({**entry, "quality": row["quality"]} if row.get("quality") else entry)
            table = pa.Table.from_pylist([checked], schema=SHARD_COLUMNS)
            ranges.append(_append(sink, writer, table))
        packed = {_INDEX: _packed(index), _RANGES: _packed(ranges)}
        writer.add_key_value_metadata({_VERSION: str(SCHEMA_VERSION), **packed})

    if not index:
        return None
    name = f"{FOLDER}/{digest.hexdigest()}.parquet"
    put_file(below(uri, name), file.getvalue())
    return name


def _append(sink: pa.NativeFile, writer: pq.ParquetWriter, row: pa.Table) -> Range:
    """Write a row group of one row, and behind it what it can be read by alone."""
    offset = sink.tell()
    writer.write_table(row)
    length = sink.tell() - offset
    chunks, footer = alone(row, length, **_WRITTEN)
    sink.write(footer)
    return Range(offset, length + len(footer), zlib.crc32(footer, zlib.crc32(chunks)))


def _packed(entry: Sequence[Any]) -> bytes:
    """Return an entry of the footer."""
    return zlib.compress(json.dumps(entry).encode())


def list_shards(uri: str) -> list[str]:
    """Return the paths of all shards below the manifest's folder, referenced or not; sorted."""
    return [path for path in _files(uri) if not path.endswith(PART_SUFFIX)]


def remove_unreferenced(uri: str, referenced: set[str]) -> list[str]:
    """Remove the shards that no manifest names any more, and what interrupted runs left behind.

    Args:
        uri: folder of the manifest.
        referenced: paths below it that stay.

    Returns:
        Paths of the removed files.
    """
    fs, root = located(uri)
    removed = [path for path in _files(uri) if path not in referenced]
    for path in removed:
        fs.rm_file(f"{root}/{path}")
    return removed


def read_index(uri: str, shard: str) -> list[dict]:
    """Return which rows a shard holds; only its footer is read.

    Args:
        uri: folder of the manifest.
        shard: path below it.

    Returns:
        One dict per row, in order: `key`, `samples`, `phones` separated by spaces, and `quality`
        if the row's recording was measured. No dicts if the shard is of another schema version.

    Raises:
        ShardError: the file is missing or damaged.
        OSError: it cannot be read.
    """
    return _entry(uri, shard, _INDEX)


def with_ranges(uri: str, table: pa.Table) -> pa.Table:
    """Return a manifest's table with RANGE_COLUMNS, as the shards' footers have them.

    Args:
        uri: folder of the manifest.
        table: rows of COLUMNS.

    Raises: see `read_index`.
    """
    shards = pc.dictionary_encode(table.column("shard")).combine_chunks()
    codes, rows = shards.indices.to_numpy(), table.column("row").to_numpy()
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    found = np.zeros((len(table), len(RANGE_COLUMNS)), np.int64)
    # on an object store the time is all waiting
    with ThreadPoolExecutor(FOOTERS_AT_A_TIME) as pool:
        read = pool.map(functools.partial(_entry, uri, name=_RANGES), shards.dictionary.to_pylist())
        for own, ranges in zip(members, read, strict=False):
            if ranges:
                found[own] = np.asarray(ranges)[rows[own]]

    unknown = found[:, 1] == 0
    for field, values in zip(RANGE_COLUMNS, found.T, strict=True):
        column = pa.array(values, mask=unknown).cast(field.type)
        table = table.append_column(field, column)
    return table


def _entry(uri: str, shard: str, name: str) -> list:
    """Return an entry of a shard's footer; an empty list if older code wrote none."""
    where = below(uri, shard)
    try:
        footer = keep_trying(functools.partial(_read_footer, where))
        if footer.get(_VERSION.encode()) != str(SCHEMA_VERSION).encode():
            return []
        if name == _RANGES and _RANGES.encode() not in footer:
            return []
        return json.loads(zlib.decompress(footer[name.encode()]))
    except (pa.ArrowException, OSError, KeyError, ValueError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        raise ShardError(
            f"{where} is damaged ({error}): delete the file and prepare again"
        ) from error


def _read_footer(where: str) -> dict[bytes, bytes]:
    """Return the entries of a shard's footer.

    Raises:
        pa.ArrowException: the file is damaged.
        OSError: it cannot be read.
    """
    with contextlib.closing(Source(where)) as file:
        try:
            return pq.read_metadata(file).metadata or {}
        except OSError as error:
            if not _is_of_arrow(error):
                raise
            raise pa.ArrowInvalid(str(error)) from error


class ShardReader:
    """Reads rows of shards, and verifies that they are what was written.

    It keeps files open of which it needs the footers. Not to be shared between threads; it has some
    of its own, as what an object store is asked for comes tens of milliseconds later.

    Args:
        uri: folder of the manifest.
        max_open: number of files that stay open.
        requests: number of requests at a time to an object store.
    """

    def __init__(self, uri: str, max_open: int = 32, requests: int = 8) -> None:
        self.uri = uri
        self.max_open = max_open
        self._open: OrderedDict[str, tuple[Source, pq.ParquetFile]] = OrderedDict()
        self._threads = None if not is_uri(uri) else ThreadPoolExecutor(requests)

    def rows(self, places: Sequence[Place | tuple[str, int]]) -> list[dict[str, Any]]:
        """Read rows.

        Args:
            places: where each row lies; without ranges, by the shard's footer.

        Returns:
            Values of SHARD_COLUMNS of each: lists of str or int, bytes for `audio`, `bert` and
            `spec`.

        Raises:
            ShardError: a shard is missing, or a row is not what was written.
            OSError: a shard cannot be read, which says nothing about what it holds. A store that
                does not answer (UnreachableError) was asked again for about a minute.
        """
        wanted = [Place(*place) for place in places]
        shards: dict[str, list[Place]] = {}
        for place in wanted:
            if place.range is None:
                shards.setdefault(place.shard, []).append(place)

        # a thread per shard that is kept open: no two open or read the same file
        run = map if self._threads is None else self._threads.map
        spans = joined([place for place in wanted if place.range is not None])
        found: dict[Place, dict[str, Any]] = {}
        for group in itertools.chain(
            run(self._of_span, spans), run(self._of_file, shards.values())
        ):
            found |= group
        while len(self._open) > self.max_open:
            self._close_oldest()
        return [found[place] for place in wanted]

    def row(self, shard: str, row: int) -> dict[str, Any]:
        """Read one row; see `rows`."""
        return self.rows([(shard, row)])[0]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._close_oldest()
        if self._threads is not None:
            self._threads.shutdown()

    def _of_span(self, span: Span) -> dict[Place, dict[str, Any]]:
        """Read rows that adjoin, in one request."""
        where = below(self.uri, span.shard)
        try:
            read = keep_trying(functools.partial(read_part, where, span.begin, span.end))
        except FileNotFoundError as error:
            raise self._missing(span.places[0]) from error
        content = memoryview(read)
        return {place: self._of_bytes(place, content, span.begin) for place in span.places}

    def _of_bytes(self, place: Place, content: memoryview, begin: int) -> dict[str, Any]:
        """Return a row, given bytes of its shard from `begin` on."""
        assert place.range is not None
        offset, length, checksum = place.range
        own = content[offset - begin : offset - begin + length]
        if len(own) < length:
            raise self._damage(place, "its file ends before it")
        if zlib.crc32(own) != checksum:
            raise self._damage(place, "its checksum differs")
        try:
            return row_of(own)
        except (pa.ArrowException, OSError, zlib.error) as error:
            raise self._damage(place, str(error)) from error

    def _of_file(self, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
        """Read rows of a shard, which stays open."""
        return {place: keep_trying(functools.partial(self._row, place)) for place in places}

    def _row(self, place: Place) -> dict[str, Any]:
        try:
            group = self._file(place.shard).read_row_group(place.row, use_threads=False)
            return self._verified(place, group.to_pylist()[0])
        except FileNotFoundError as error:
            raise self._missing(place) from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and not _is_of_arrow(error):
                raise
            raise self._damage(place, str(error)) from error

    def _verified(self, place: Place, row: dict[str, Any]) -> dict[str, Any]:
        if None in row.values() or row_checksum(row) != row["checksum"]:
            raise self._damage(place, f"its checksum differs, utterance {row['id']}")
        return row

    def _missing(self, place: Place) -> ShardError:
        return ShardError(
            f"{self.uri}/{place.shard} row {place.row} is missing with its file: "
            "prepare again (python -m job.prepare)"
        )

    def _damage(self, place: Place, what: str) -> ShardError:
        return ShardError(
            f"{self.uri}/{place.shard} row {place.row} is damaged ({what}): "
            "delete the file and run python -m job.prepare again"
        )

    def _file(self, shard: str) -> pq.ParquetFile:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard][1]
        file = Source(below(self.uri, shard))
        try:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            self._check_schema(shard, parquet)
        except (pa.ArrowException, OSError, ShardError):
            file.close()
            raise
        self._open[shard] = (file, parquet)
        return parquet

    def _check_schema(self, shard: str, parquet: pq.ParquetFile) -> None:
        version = (parquet.metadata.metadata or {}).get(_VERSION.encode(), b"1").decode()
        if version != str(SCHEMA_VERSION):
            raise ShardError(
                f"{self.uri}/{shard} has schema version {version}, this code reads "
                f"{SCHEMA_VERSION}: prepare again"
            )
        if not parquet.schema_arrow.equals(SHARD_COLUMNS):
            raise pa.ArrowInvalid("its columns are not data.shards.manifest.SHARD_COLUMNS")

    def _close_oldest(self) -> None:
        _, (file, parquet) = self._open.popitem(last=False)
        parquet.close()
        file.close()


def _is_of_arrow(error: OSError) -> bool:
    """Tell Arrow's complaints about content, OSErrors without a number, from a file system's."""
    return error.errno is None and type(error) is OSError


def _files(uri: str) -> list[str]:
    """Return the paths of all files in the folder of shards, relative to `uri`; sorted."""
    fs, root = located(uri)
    folder = f"{root}/{FOLDER}"
    fs.invalidate_cache(folder)
    with reachable(uri):
        found = fs.ls(folder, detail=False) if fs.exists(folder) else []
    return sorted(f"{FOLDER}/{path.rsplit('/', 1)[-1]}" for path in found)
