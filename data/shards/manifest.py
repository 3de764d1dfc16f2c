"""The manifest: what was prepared, one row per utterance, and where each row's shard lies.

A folder (or URI) of shards holds

    manifest.json     header: schema version, settings that the features depend on, speakers, digest
    manifest.parquet  table: COLUMNS below, and perhaps RANGE_COLUMNS and GENERATION_COLUMNS,
                      sorted by (frames, id)
    rejects.jsonl     the ledger's other half: rejected lines of the transcript, with their reasons
    quality.jsonl     lines whose recordings are beyond a threshold of data.quality
    report.html       the same for people, with lengths, speakers and phones
    shards/*.parquet  SHARD_COLUMNS below

The reader refuses a schema version that it does not know. docs/data-format.md describes the format
for people.
"""

import functools
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.files import below, put_file, put_parts, read_file, stays_below, version_of
from data.memory import give_back_freed_memory
from data.shards.columns import GENERATION, NAMES, NUMBERS, ROWS, Columns, compact
from data.shards.node_files import node_tables
from data.shards.ranges import Place, Range

SCHEMA_VERSION = 2
LAYOUT = 3  # of data.shards.columns: files of a node that were made by other code are no use
SPLITS = ("train", "validation")
ROWS_PER_GROUP = 1 << 16  # of the table's file, as each is written from memory
BYTES_AT_A_TIME = 1 << 20

COLUMNS = pa.schema(
    [
        ("id", pa.string()),  # unique; the transcript's, or else the audio path as written there
        ("key", pa.string()),  # content address: hash of all that the row depends on
        ("speaker", pa.string()),
        ("language", pa.string()),  # ZH | JP | EN
        ("split", pa.string()),  # train | validation
        ("frames", pa.int32()),  # spectrogram frames: samples // hop_length
        ("phones", pa.int32()),  # P, without blanks
        ("samples", pa.int64()),
        ("shard", pa.string()),  # path below the manifest's folder
        ("row", pa.int32()),  # row of the shard
    ]
)

# of rows whose shards were written with ranges (data.shards.ranges); empty for others, and left out
# where no row has one
RANGE_COLUMNS = pa.schema(
    [
        ("offset", pa.int64()),  # first byte in the shard's file
        ("length", pa.int32()),
        ("checksum", pa.uint32()),  # CRC-32 of these bytes
    ]
)

# preparation that added the row, counted from 0; left out where one added all
GENERATION_COLUMNS = pa.schema([(GENERATION, pa.int32())])

SHARD_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),
        ("speaker", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),  # as the transcript writes it
        ("norm_text", pa.string()),
        ("phones", pa.list_(pa.string())),  # P
        ("tones", pa.list_(pa.int8())),  # P, counted from 0 in each language
        ("word2ph", pa.list_(pa.int16())),  # N, phones per token; sums to P
        ("audio", pa.binary()),  # FLAC, mono, at the manifest's sampling rate
        ("samples", pa.int64()),
        ("frames", pa.int32()),
        ("bert", pa.binary()),  # float16 [N, bert_width], C order
        ("bert_width", pa.int32()),
        # float32 [filter_length / 2 + 1, frames], C order; empty if it is not stored
        ("spec", pa.binary()),
        ("checksum", pa.string()),  # data.shards.shard.row_checksum of all the above
    ]
)


class ManifestError(ValueError):
    """The manifest is missing, damaged, or of another version."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """The prepared corpus.

    Attributes:
        uri: folder or URI that holds it.
        header: `schema_version`, `sampling_rate`, `hop_length`, `bert_width`, `speakers` (name ->
            id), `digest`, ...
        columns: COLUMNS and perhaps RANGE_COLUMNS and GENERATION_COLUMNS, one row per utterance.
    """

    uri: str
    header: dict
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def speakers(self) -> dict[str, int]:
        """Speaker name -> row of the embedding table."""
        return self.header["speakers"]

    @property
    def digest(self) -> str:
        """Identity of the prepared corpus: two runs with equal digests see equal data."""
        return self.header["digest"]

    @property
    def table(self) -> pa.Table:
        """All columns, as the file has them: a copy, for small corpora."""
        schema = _schema(self.has_ranges, self.columns.has_generations)
        found = {field.name: self.columns.whole(field.name).cast(field.type) for field in schema}
        if self.has_ranges:
            none = pc.equal(found["length"], 0)
            nothing = pa.scalar(None)
            found |= {name: pc.if_else(none, nothing, found[name]) for name in RANGE_COLUMNS.names}
        return pa.table(found, schema=schema)

    @property
    def has_ranges(self) -> bool:
        """Whether it tells where rows lie in their files, of all or of some."""
        return self.columns.has_ranges

    @property
    def generations(self) -> str | None:
        """What identifies which preparation added which row; None if one added all."""
        return self.header.get("generations")

    @property
    def names(self) -> "Names":
        """The utterances' ids, which are read when a row's is asked for."""
        return Names(self)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split, int32 [n], in the table's order."""
        return self.columns.rows(split)

    def lengths(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames and phones of a split's rows, int32 [n] each."""
        return self.columns.lengths(split)

    def sample(self, split: str, limit: int, min_frames: int = 0) -> np.ndarray:
        """Return the rows of up to `limit` utterances of a split, int64 [n]; see Columns.sample."""
        return self.columns.sample(split, limit, min_frames)

    def column(self, name: str) -> np.ndarray:
        """Return a column as a numpy array [rows]: texts as Python objects, for small corpora."""
        if name in NUMBERS:
            return self.columns.numbers(name)
        return self.columns.whole(name).to_numpy(zero_copy_only=False)

    def values(self, name: str, rows: Sequence[int] | np.ndarray) -> list[Any]:
        """Return a column's values in some rows; the cost does not grow with the corpus."""
        return self.columns.values(name, rows)

    def having(self, name: str, word: str) -> np.ndarray:
        """Tell of each row whether `speaker`, `language` or `split` is `word`, bool [rows]."""
        return self.columns.having(name, word)

    def counts(self, name: str, rows: np.ndarray) -> dict[str, int]:
        """Return how often each `speaker` or `language` occurs in some rows; those that do."""
        return self.columns.counts(name, rows)

    def places(self, rows: Sequence[int] | np.ndarray) -> list[tuple[str, int]]:
        """Return the shard of each of some rows, and its row of that shard."""
        return list(zip(self.values("shard", rows), self.values("row", rows), strict=True))

    def located(self, rows: Sequence[int] | np.ndarray) -> list[Place]:
        """Return where some rows lie, with the ranges that are known."""
        rows = np.asarray(rows, np.int64)
        places = self.places(rows)
        if not self.has_ranges:
            return [Place(*place) for place in places]
        columns = [self.values(name, rows) for name in RANGE_COLUMNS.names]
        ranges = map(Range, *columns)
        return [
            Place(*place, own if own.length else None)
            for place, own in zip(places, ranges, strict=True)
        ]

    def words(self, name: str) -> list[str]:
        """Return the different values of `speaker`, `language`, `split` or `shard`."""
        return self.columns.words(name)


@dataclass(frozen=True, eq=False)
class Names:
    """The ids of the utterances, for messages."""

    manifest: Manifest

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        return self.manifest.values("id", rows)


def write_manifest(uri: str, header: dict, table: pa.Table) -> Manifest:
    """Write a manifest.

    The table comes first, then the header that names its digest, which makes it valid.

    Args:
        uri: folder or URI.
        header: all but `schema_version` and `digest`, which are filled in here.
        table: rows of COLUMNS, of RANGE_COLUMNS if any has a range, and of GENERATION_COLUMNS if
            they differ in it; in any order.
    """
    schema = _schema(_has_ranges(table), GENERATION in table.column_names)
    table = table.select(schema.names).cast(schema)
    table = table.sort_by([("frames", "ascending"), ("id", "ascending")])
    give_back_freed_memory()
    _put_table(below(uri, "manifest.parquet"), table)
    give_back_freed_memory()

    columns, digest = columns_of(table)
    header = {"schema_version": SCHEMA_VERSION, **header, "digest": digest}
    if columns.has_generations:
        header["generations"] = columns.digest_of_generations()
    text = json.dumps(header, indent=1, sort_keys=True, ensure_ascii=False)
    put_file(below(uri, "manifest.json"), text.encode())
    return Manifest(uri, header, columns)


def _put_table(uri: str, table: pa.Table) -> None:
    """Write a table; memory holds a part of the file at a time."""
    with tempfile.TemporaryFile() as file:
        pq.write_table(table, file, row_group_size=ROWS_PER_GROUP)
        file.seek(0)
        put_parts(uri, iter(functools.partial(file.read, BYTES_AT_A_TIME), b""))


def columns_of(table: pa.Table) -> tuple[Columns, str]:
    """Return the columns of a table of COLUMNS, and their digest."""

    def read(name: str) -> list[pa.Array]:
        return [_nothing(name), *table.column(name).chunks]

    return compact(read, _has_ranges(table), GENERATION in table.column_names)


def _has_ranges(table: pa.Table) -> bool:
    first = RANGE_COLUMNS.names[0]
    return first in table.column_names and table.column(first).null_count < len(table)


def _schema(has_ranges: bool = True, has_generations: bool = True) -> pa.Schema:
    """Return the columns of a manifest, by default all that one can have."""
    parts = [COLUMNS, *[RANGE_COLUMNS] * has_ranges, *[GENERATION_COLUMNS] * has_generations]
    return pa.unify_schemas(parts)


def read_manifest(uri: str) -> Manifest:
    """Read and check a manifest.

    Raises:
        ManifestError: it is missing, of an unknown version, its table is not the one its header
            names, or names files elsewhere.
        OSError: it cannot be read.
    """
    try:
        header = _read_header(uri)
        version = header["schema_version"]
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{uri}/manifest.json has schema version {version}, this code reads "
                f"{SCHEMA_VERSION}: prepare again, or use the code that wrote it"
            )
        return Manifest(uri, header, _shared_columns(uri, header))
    except FileNotFoundError as error:
        raise ManifestError(
            f"{uri} holds no prepared shards ({error}): "
            "run `python -m job.prepare` first, or set data.shards"
        ) from error


def _shared_columns(uri: str, header: Mapping[str, Any]) -> Columns:
    """Return the columns that this node's processes share; read them if none has done so yet."""
    # the digest does not tell where the rows lie
    parts = [LAYOUT, header.get("digest"), version_of(below(uri, "manifest.parquet"))]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return Columns(node_tables(key, (ROWS, NAMES), lambda: _read_columns(uri, header).tables))


def _read_columns(uri: str, header: Mapping[str, Any]) -> Columns:
    """Read and check the table that a header names; one column at a time."""
    where = f"{uri}/manifest.parquet"
    content = pa.BufferReader(read_file(below(uri, "manifest.parquet")))
    try:
        file = pq.ParquetFile(content)
        there = file.schema_arrow.names
        has_ranges, has_generations = RANGE_COLUMNS.names[0] in there, GENERATION in there
        read = functools.partial(_read_column, file)
        columns, digest = compact(read, has_ranges, has_generations)
    except (pa.ArrowException, KeyError, OSError) as error:  # OSError: Arrow's, it is read already
        raise ManifestError(f"{where} is damaged ({error}): prepare again") from error
    named = header.get("digest"), header.get("generations")
    if (digest, columns.digest_of_generations()) != named:
        raise ManifestError(f"{where} is not the table that manifest.json names: prepare again")
    for shard in columns.words("shard"):  # no part of the digest
        if not (isinstance(shard, str) and stays_below(shard)):
            raise ManifestError(
                f"{where} is refused: its shard {shard} lies elsewhere; prepare again"
            )
    return columns


def _read_column(file: pq.ParquetFile, name: str) -> Iterator[pa.Array]:
    """Yield a column in parts."""
    yield _nothing(name)  # a file may have no parts
    for group in range(file.num_row_groups):
        column = file.read_row_group(group, [name]).column(name)
        if name in (*NUMBERS, GENERATION) and column.null_count:
            raise pa.ArrowInvalid(f"{name} has empty cells")
        if name in RANGE_COLUMNS.names and pc.any(pc.less(column, 0)).as_py():
            raise pa.ArrowInvalid(f"{name} is below 0")
        yield from column.cast(_schema().field(name).type).chunks


def _nothing(name: str) -> pa.Array:
    """Return a column without rows."""
    return pa.array([], _schema().field(name).type)


def known_speakers(uri: str, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return speaker name -> id of what was prepared at `uri` before, and of `data.speakers`.

    Args:
        uri: folder or URI of the shards; there may be none.
        given: `data.speakers`; None: no row is given.

    Raises:
        ValueError: they contradict each other, or see `earlier_header`.
    """
    header = earlier_header(uri)
    kept: dict[str, int] = header["speakers"] if header else {}
    owners = {number: name for name, number in kept.items()}
    given = given or {}
    for name, number in given.items():
        other = owners.get(number, name)
        if kept.get(name, number) != number or other != name:
            holder = f"{name} has the row {kept[name]}" if name in kept else f"{other} has it"
            raise ValueError(
                f"data.speakers gives {name} the row {number}, but in {uri} {holder}, which stays: "
                "change data.speakers, or prepare into another data.shards"
            )
    return {**kept, **given}


def earlier_header(uri: str) -> dict | None:
    """Return the header of what was prepared at `uri` before; None if nothing was.

    It may have been prepared by an older version.

    Raises:
        ManifestError: manifest.json is damaged, or of a newer version.
        OSError: it cannot be read.
    """
    try:
        header = _read_header(uri)
    except FileNotFoundError:
        return None
    version = header["schema_version"]
    if version > SCHEMA_VERSION:
        raise ManifestError(
            f"{uri}/manifest.json has schema version {version}, newer than this code's "
            f"{SCHEMA_VERSION}: set data.shards to another folder"
        )
    return header


def _read_header(uri: str) -> dict:
    try:
        header = json.loads(read_file(below(uri, "manifest.json")))
        if isinstance(header["schema_version"], int) and isinstance(header["speakers"], dict):
            return header
        problem = "its schema_version is no number, or its speakers are no object"
    except (ValueError, KeyError, TypeError) as error:
        problem = repr(error)
    raise ManifestError(
        f"{uri}/manifest.json is damaged ({problem}): delete it and prepare again; "
        "speakers are then numbered from scratch"
    )


def number_speakers(names: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """Return speaker name -> id.

    Known speakers keep their ids, even if they have no lines any more; new ones follow the highest
    of these, by name. A gap stays one: its row may be of somebody whom the weights know.
    """
    new = sorted(set(names) - set(known))
    first = 1 + max(known.values(), default=-1)
    return {**known, **{name: number for number, name in enumerate(new, start=first)}}
