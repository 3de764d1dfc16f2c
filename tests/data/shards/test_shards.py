"""Shards: rows come back as written, files are named by content, and damage is found."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile

from data.files import PART_SUFFIX
from data.shards.manifest import SCHEMA_VERSION, SHARD_COLUMNS
from data.shards.shard import (
    ShardError,
    ShardReader,
    list_shards,
    read_index,
    remove_unreferenced,
    write_shard,
)


def make_row(number: int, seed: int = 0) -> dict:
    rng = np.random.default_rng((seed, number))
    return {
        "id": f"wavs/{number:03}.wav",
        "key": f"{number:032x}",
        "speaker": "anna",
        "language": "ZH",
        "text": "你好。",
        "norm_text": "你好.",
        "phones": ["_", "n", "i", "h", "ao", "_"],
        "tones": [0, 3, 3, 3, 3, 0],
        "word2ph": [1, 2, 2, 1],
        "audio": rng.bytes(5000),
        "samples": 44100 + number,
        "frames": 86,
        "bert": rng.standard_normal((4, 8)).astype(np.float16).tobytes(),
        "bert_width": 8,
        "spec": rng.standard_normal((5, 86)).astype(np.float32).tobytes(),
    }


def test_rows_come_back_in_any_order(tmp_path) -> None:
    rows = [make_row(n) for n in range(20)]
    shard = write_shard(str(tmp_path), rows)
    reader = ShardReader(str(tmp_path))
    for n in (19, 0, 7, 7):
        found = reader.row(shard, n)
        assert set(found) == set(SHARD_COLUMNS.names)
        assert {name: found[name] for name in rows[n]} == rows[n]
    assert read_index(str(tmp_path), shard) == [
        {"key": r["key"], "samples": r["samples"], "phones": "_ n i h ao _"} for r in rows
    ]


def test_equal_rows_give_equal_files(tmp_path) -> None:
    rows = [make_row(n) for n in range(5)]
    first = write_shard(str(tmp_path / "a"), rows)
    second = write_shard(str(tmp_path / "b"), rows)
    assert first == second
    assert (tmp_path / "a" / first).read_bytes() == (tmp_path / "b" / second).read_bytes()
    assert write_shard(str(tmp_path / "a"), [{**rows[0], "text": "您好。"}, *rows[1:]]) != first
    assert write_shard(str(tmp_path / "a"), rows[::-1]) != first


def test_open_files_are_bounded(tmp_path) -> None:
    shards = [write_shard(str(tmp_path), [make_row(0, seed)]) for seed in range(6)]
    reader = ShardReader(str(tmp_path), max_open=2)
    for shard in shards + shards[::-1]:
        reader.row(shard, 0)
        assert len(reader._open) <= 2
    reader.close()
    assert not reader._open


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("column", ["audio", "bert", "spec"])
def test_a_flipped_byte_is_found_and_named(tmp_path, column: str) -> None:
    rows = [make_row(n) for n in range(3)]
    shard = write_shard(str(tmp_path), rows)
    path = tmp_path / shard
    flip(path, path.read_bytes().index(rows[1][column]) + 30)
    reader = ShardReader(str(tmp_path))
    reader.row(shard, 0)
    with pytest.raises(ShardError) as caught:
        reader.row(shard, 1)
    assert shard in str(caught.value)
    assert "row 1" in str(caught.value)
    assert rows[1]["id"] in str(caught.value)


@pytest.mark.medium
def test_no_flipped_byte_of_a_row_goes_unnoticed(tmp_path) -> None:
    """Any byte of the file: what is read equals what was written, or reading raises ShardError."""
    rows = [{**make_row(0), "audio": b"abc", "bert": b"def", "spec": b""}]
    shard = write_shard(str(tmp_path), rows)
    path = tmp_path / shard
    intact = path.read_bytes()
    written = ShardReader(str(tmp_path)).row(shard, 0)
    found = 0
    for offset in range(0, len(intact), 3):
        flip(path, offset)
        try:
            assert ShardReader(str(tmp_path)).row(shard, 0) == written
        except ShardError:
            found += 1
        path.write_bytes(intact)
    assert found > 100


def test_missing_and_cut_off_files(tmp_path) -> None:
    shard = write_shard(str(tmp_path), [make_row(0)])
    path = tmp_path / shard
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ShardError, match="damaged"):
        ShardReader(str(tmp_path)).row(shard, 0)
    with pytest.raises(ShardError, match="damaged"):
        read_index(str(tmp_path), shard)
    path.unlink()
    with pytest.raises(ShardError, match="missing"):
        ShardReader(str(tmp_path)).row(shard, 0)


def test_unreferenced_shards_and_leftovers_are_removed(tmp_path) -> None:
    assert list_shards(str(tmp_path)) == []
    kept = write_shard(str(tmp_path), [make_row(0)])
    gone = write_shard(str(tmp_path), [make_row(1)])
    leftover = tmp_path / f"{kept}.0{PART_SUFFIX}"
    leftover.write_bytes(b"cut off")
    assert list_shards(str(tmp_path)) == sorted([kept, gone])
    assert len(remove_unreferenced(str(tmp_path), {kept})) == 2
    assert list_shards(str(tmp_path)) == [kept]


def test_another_schema_version_is_refused_by_readers_and_prepared_again(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("data.shards.shard.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    shard = write_shard(str(tmp_path), [make_row(0)])
    monkeypatch.undo()
    refusal = f"schema version {SCHEMA_VERSION + 1}, this code reads {SCHEMA_VERSION}"
    with pytest.raises(ShardError, match=refusal):
        ShardReader(str(tmp_path)).row(shard, 0)
    assert read_index(str(tmp_path), shard) == []


def test_no_rows_make_no_shard(tmp_path) -> None:
    assert write_shard(str(tmp_path), []) is None
    assert list_shards(str(tmp_path)) == []


@pytest.mark.medium
def test_an_epoch_reads_each_byte_about_once_from_an_object_store(monkeypatch) -> None:
    """Micro-batches of rows of any shards, in any order."""
    written: dict[tuple[str, int], dict] = {}
    for first in range(0, 600, 100):
        rows = [
            {**make_row(n), "audio": np.random.default_rng(n).bytes(50_000)}
            for n in range(first, first + 100)
        ]
        shard = write_shard("memory://epoch", rows)
        written |= {(shard, i): row for i, row in enumerate(rows)}
    total = fsspec.filesystem("memory").du("/epoch")

    sizes: list[int] = []
    read = MemoryFile.read

    def counted(file, *size):
        sizes.append(len(content := read(file, *size)))
        return content

    monkeypatch.setattr(MemoryFile, "read", counted)
    places = list(written)
    np.random.default_rng(0).shuffle(places)
    places = [(str(shard), int(i)) for shard, i in places]

    reader = ShardReader("memory://epoch")
    for begin in range(0, len(places), 12):
        wanted = places[begin : begin + 12]
        found = reader.rows(wanted)
        assert [row["key"] for row in found] == [written[place]["key"] for place in wanted]
    reader.close()
    assert total <= sum(sizes) < 1.1 * total, sum(sizes) / total
