"""Shards: immutable Parquet files, named by their content, with what training reads.

One row group per row: reading a row reads that row and the file's footer (about 1 KB per row),
nothing else. FLAC, BERT features and spectrograms are stored as they are; every row carries a
checksum that is verified whenever it is read. The footer holds the schema's version and an index of
the rows.
"""

import functools
import hashlib
import io
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.files import PART_SUFFIX, Source, below, is_uri, keep_trying, located, put_file, reachable
from data.shards.manifest import SCHEMA_VERSION, SHARD_COLUMNS

FOLDER = "shards"
_BINARY = ("audio", "bert", "spec")
_CHECKED = tuple(name for name in SHARD_COLUMNS.names if name != "checksum")
# entries of the footer
_VERSION = "schema_version"
_INDEX = "rows"


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
        rows: values of SHARD_COLUMNS; `checksum` is filled in here, other columns are left out.

    Returns:
        The shard's path below `uri`; equal rows give equal paths. None if there are no rows, and no
        file.

    Raises:
        OSError: it cannot be written.
    """
    digest = hashlib.blake2b(digest_size=16)
    index: list[dict] = []
    sink = io.BytesIO()
    with _writer(sink) as writer:
        for row in rows:
            checked = {name: row[name] for name in _CHECKED} | {"checksum": row_checksum(row)}
            digest.update(checked["checksum"].encode())
            phones = " ".join(row["phones"])
            index.append({"key": row["key"], "samples": row["samples"], "phones": phones})
            writer.write_table(pa.Table.from_pylist([checked], schema=SHARD_COLUMNS))
        packed = zlib.compress(json.dumps(index).encode())
        writer.add_key_value_metadata({_VERSION: str(SCHEMA_VERSION), _INDEX: packed})

    if not index:
        return None
    name = f"{FOLDER}/{digest.hexdigest()}.parquet"
    put_file(below(uri, name), sink.getvalue())
    return name


def _writer(sink: io.BytesIO) -> pq.ParquetWriter:
    # FLAC, float16 features and spectrograms do not shrink
    names = SHARD_COLUMNS.names
    compression = {name: "none" if name in _BINARY else "zstd" for name in names}
    return pq.ParquetWriter(
        sink,
        SHARD_COLUMNS,
        compression=compression,
        use_dictionary=False,  # row groups of one row repeat nothing
        write_statistics=False,
    )


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
        One dict per row, in order: `key`, `samples`, and `phones` separated by spaces. No dicts if
        the shard is of another schema version.

    Raises:
        ShardError: the file is damaged.
    """
    where = below(uri, shard)
    fs, path = located(where)
    try:
        with fs.open(path, "rb", cache_type="none") as file:
            footer = pq.read_metadata(file).metadata or {}
        if footer.get(_VERSION.encode()) != str(SCHEMA_VERSION).encode():
            return []
        return json.loads(zlib.decompress(footer[_INDEX.encode()]))
    except (pa.ArrowException, OSError, KeyError, ValueError, zlib.error) as error:
        raise ShardError(
            f"{where} is damaged ({error}): delete the file and prepare again"
        ) from error


class ShardReader:
    """Reads rows of shards, and verifies their checksums.

    It keeps files open. Not to be shared between threads; it has some of its own, as rows of an
    object store come one request each, tens of milliseconds after it was made.

    Args:
        uri: folder of the manifest.
        max_open: number of files that stay open.
        requests: number of shards that are read at a time from an object store.
    """

    def __init__(self, uri: str, max_open: int = 32, requests: int = 8) -> None:
        self.uri = uri
        self.max_open = max_open
        self._open: OrderedDict[str, tuple[Source, pq.ParquetFile]] = OrderedDict()
        self._threads = None if not is_uri(uri) else ThreadPoolExecutor(requests)

    def rows(self, places: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Read rows.

        Args:
            places: path below the manifest's folder, and row of that shard, of each row.

        Returns:
            Values of SHARD_COLUMNS of each: lists of str or int, bytes for `audio`, `bert` and
            `spec`.

        Raises:
            ShardError: a shard is missing, or a row is not what was written.
            OSError: a shard cannot be read, which says nothing about what it holds. A store that
                does not answer (UnreachableError) was asked again for about a minute.
        """
        shards: dict[str, list[int]] = {}
        for shard, row in places:
            shards.setdefault(shard, []).append(row)

        def read(shard: str) -> dict[tuple[str, int], dict[str, Any]]:
            return {
                (shard, row): keep_trying(functools.partial(self._row, shard, row))
                for row in shards[shard]
            }

        # a thread per shard: no two open or read the same file
        run = map if self._threads is None else self._threads.map
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for group in run(read, shards):
            found |= group
        while len(self._open) > self.max_open:
            self._close_oldest()
        return [found[place] for place in places]

    def row(self, shard: str, row: int) -> dict[str, Any]:
        """Read one row; see `rows`."""
        return self.rows([(shard, row)])[0]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._close_oldest()
        if self._threads is not None:
            self._threads.shutdown()

    def _row(self, shard: str, row: int) -> dict[str, Any]:
        try:
            found = self._file(shard).read_row_group(row, use_threads=False).to_pylist()[0]
            intact = None not in found.values() and row_checksum(found) == found["checksum"]
        except FileNotFoundError as error:
            raise ShardError(
                f"{self.uri}/{shard} row {row} is missing with its file: "
                "prepare again (python -m job.prepare)"
            ) from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and not _is_of_arrow(error):
                raise
            raise ShardError(self._damage(shard, row, str(error))) from error
        if not intact:
            problem = f"its checksum differs, utterance {found['id']}"
            raise ShardError(self._damage(shard, row, problem))
        return found

    def _damage(self, shard: str, row: int, what: str) -> str:
        return (
            f"{self.uri}/{shard} row {row} is damaged ({what}): "
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
