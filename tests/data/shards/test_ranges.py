"""Rows by their ranges: neighbours in one request, the same rows, and damage as by the footer."""

from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from data.shards import shard as shard_module
from data.shards.manifest import (
    COLUMNS,
    RANGE_COLUMNS,
    Manifest,
    ManifestError,
    read_manifest,
    write_manifest,
)
from data.shards.ranges import Place, Range, joined
from data.shards.shard import ShardError, ShardReader, with_ranges, write_shard
from tests.data.shards.test_shards import flip, make_row

ROWS, PER_SHARD = 20, 7


def prepared(uri: str, older: int = 0) -> Manifest:
    """Write rows and their manifest; the first few shards as older code did."""
    rows = [make_row(number) for number in range(ROWS)]
    table = []
    for first in range(0, ROWS, PER_SHARD):
        shard = write_shard(uri, rows[first : first + PER_SHARD])
        for number, row in enumerate(rows[first : first + PER_SHARD]):
            place = {"split": "train", "phones": 6, "shard": shard, "row": number}
            table.append({name: row.get(name) for name in COLUMNS.names} | place)
    whole = pa.Table.from_pylist(table, COLUMNS)
    made = with_ranges(uri, pa.concat_tables([whole.slice(0, 5), whole.slice(5)]))
    if older:
        known = np.arange(ROWS) >= older * PER_SHARD
        for number, name in enumerate(made.column_names):
            if name in RANGE_COLUMNS.names:
                values = np.array(made.column(name).to_pylist())
                column = pa.array(values, made.field(name).type, mask=~known)
                made = made.set_column(number, made.field(name), column)
    write_manifest(uri, {"speakers": {}}, made)
    return read_manifest(uri)


@pytest.fixture
def requests(monkeypatch) -> list[tuple[str, int, int]]:
    made: list[tuple[str, int, int]] = []
    read = shard_module.read_part

    def noted(uri: str, begin: int, end: int) -> bytes:
        made.append((uri, begin, end))
        return read(uri, begin, end)

    monkeypatch.setattr(shard_module, "read_part", noted)
    return made


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("older", [0, 1, 3])
def test_rows_are_what_the_footers_way_reads(tmp_path, scheme, older, requests):
    uri = f"{scheme}{tmp_path}"
    manifest = prepared(uri, older)
    wanted = np.random.default_rng(0).integers(0, ROWS, 30)
    with_footers = ShardReader(uri).rows(manifest.places(wanted))
    assert not requests
    by_ranges = ShardReader(uri).rows(manifest.located(wanted))
    assert by_ranges == with_footers
    assert [row["key"] for row in by_ranges] == manifest.values("key", wanted)
    assert bool(requests) == (older < 3)
    assert manifest.has_ranges == (older < 3)


def test_neighbours_come_in_one_request_and_nothing_is_read_twice(tmp_path, requests):
    manifest = prepared(str(tmp_path))
    reader = ShardReader(str(tmp_path))
    reader.rows(manifest.located([4, 2, 3, 3]))
    assert len(requests) == 1
    (_, begin, end), places = requests[0], manifest.located([2, 3, 4])
    assert end - begin == sum(place.range.length for place in places)
    requests.clear()
    reader.rows(manifest.located([0, 2, 3, 6, 7]))  # 6 and 7 lie in two shards
    assert len(requests) == 4
    requests.clear()
    reader.rows(manifest.located(np.random.default_rng(0).permutation(ROWS)))
    assert len(requests) == 3


def test_what_is_joined_covers_each_place_once():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 50, 12)
        ends = 4 + np.cumsum(lengths)
        every = [
            Place(shard, row, Range(int(ends[row] - lengths[row]), int(lengths[row]), 0))
            for shard in "ab"
            for row in range(12)
        ]
        chosen = [every[i] for i in rng.integers(0, 24, rng.integers(0, 20))]
        spans = joined(chosen)
        assert sorted(place for span in spans for place in span.places) == sorted(set(chosen))
        for span in spans:
            lengths_of = [place.range.length for place in span.places if place.range]
            assert span.end - span.begin == sum(lengths_of)
        borders = {(span.shard, span.begin) for span in spans}
        assert not borders & {(span.shard, span.end) for span in spans}


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("where", [0, 30, -1, -5, -300])
def test_a_flipped_byte_damages_its_row_alone(tmp_path, scheme, where):
    uri = f"{scheme}{tmp_path}"
    manifest = prepared(uri)
    place = manifest.located([3])[0]
    fs, path = fsspec.core.url_to_fs(f"{uri}/{place.shard}")
    content = bytearray(fs.cat_file(path))
    begin, length, _ = place.range
    content[begin + where % length] ^= 1
    fs.pipe_file(path, bytes(content))
    reader = ShardReader(uri)
    with pytest.raises(ShardError, match=f"{place.shard} row 3 is damaged .its checksum differs"):
        reader.rows(manifest.located([2, 3, 4]))
    assert len(reader.rows(manifest.located([0, 1, 2, 4, 5, 6, 7]))) == 7


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize("left", [0, 10, 9000, -700])
def test_files_that_end_early_and_files_that_are_gone(tmp_path, scheme, left):
    uri = f"{scheme}{tmp_path}"
    manifest = prepared(uri)
    places = manifest.located(range(PER_SHARD))
    fs, path = fsspec.core.url_to_fs(f"{uri}/{places[0].shard}")
    ends = [place.range.offset + place.range.length for place in places]
    content = fs.cat_file(path)[: left if left >= 0 else ends[-1] + left]
    fs.pipe_file(path, content)
    reader = ShardReader(uri)
    for row, end in enumerate(ends):
        if end <= len(content):
            reader.rows(manifest.located([row]))
            continue
        with pytest.raises(ShardError, match=f"row {row} is damaged .its file ends before it"):
            reader.rows(manifest.located([row]))
    fs.rm_file(path)
    with pytest.raises(ShardError, match="row 2 is missing with its file"):
        reader.rows(manifest.located([2]))


def test_a_range_that_names_another_row_is_damage(tmp_path):
    """The manifest of one preparation, the shards of another."""
    manifest = prepared(str(tmp_path))
    place = manifest.located([3])[0]
    flip(Path(tmp_path, place.shard), place.range.offset + 40)
    other = manifest.located([2])[0]
    with pytest.raises(ShardError, match="row 2 is damaged"):
        ShardReader(str(tmp_path)).rows([other._replace(range=place.range)])


def test_a_manifest_with_ranges_that_no_file_has_is_refused(tmp_path):
    table = prepared(str(tmp_path)).table
    column = pa.array([-1, *table.column("offset").to_pylist()[1:]], pa.int64())
    number = table.column_names.index("offset")
    write_manifest(str(tmp_path), {"speakers": {}}, table.set_column(number, "offset", column))
    with pytest.raises(ManifestError, match="offset is below 0"):
        read_manifest(str(tmp_path))


def test_the_table_is_written_again_as_it_was(tmp_path):
    for older, columns in ((0, 13), (2, 13), (3, 10)):
        folder = str(tmp_path / str(older))
        manifest = prepared(folder, older)
        assert manifest.table.num_columns == columns
        lengths = manifest.table.to_pylist()
        assert [row.get("length") is None for row in lengths] == [
            number < older * PER_SHARD for number in range(ROWS)
        ]
        again = write_manifest(str(tmp_path / "again"), {"speakers": {}}, manifest.table)
        assert again.table.equals(manifest.table)
        assert again.digest == manifest.digest
        names = (f"{folder}/manifest.parquet", f"{tmp_path}/again/manifest.parquet")
        assert Path(names[0]).read_bytes() == Path(names[1]).read_bytes()
