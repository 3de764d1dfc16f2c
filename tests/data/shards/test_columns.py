"""The manifest's columns as training holds them: the values, order and digest of the file's."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.shards import columns as columns_module
from data.shards.manifest import (
    COLUMNS,
    SCHEMA_VERSION,
    ManifestError,
    read_manifest,
    write_manifest,
)

# what the code of 2026-11-26 had written, before columns were shared
OLD = Path(__file__).parent / "assets/manifest"
OLD_DIGEST = "223e659e2566dc625394c8fa626eaeb2033179b2d8384f4ea3f1074968708ffa"
DIGESTED = ("id", "key", "speaker", "language", "split", "frames", "phones")


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def entries(count: int, seed: int = 0) -> list[dict]:
    """Rows of COLUMNS that are sorted as a manifest is."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        frames = int(rng.integers(1, 50))
        rows.append(
            {
                "id": f"s{number % 5}/ünd{number}.wav",
                "key": f"{rng.integers(2**62):032x}",
                "speaker": f"s{number % 5}",
                "language": ("ZH", "JP", "EN")[number % 3],
                "split": ("train", "validation")[int(rng.random() < 0.2)],
                "frames": frames,
                "phones": int(rng.integers(1, 50)),
                "samples": frames * 512 + 2**33,
                "shard": f"shards/{number // 4}.parquet",
                "row": number % 4,
            }
        )
    return sorted(rows, key=lambda row: (row["frames"], row["id"]))


def as_text(rows: list[dict]) -> str:
    """Return the digest as docs/data-format.md defines it."""
    digest = hashlib.sha256()
    for name in DIGESTED:
        digest.update("\0".join(str(row[name]) for row in rows).encode())
    return digest.hexdigest()


def written(folder: Path, rows: list[dict], **options: int) -> str:
    """Write a manifest; its table with options of pq.write_table."""
    table = pa.Table.from_pylist(rows, COLUMNS)
    write_manifest(str(folder), {"speakers": {}}, table)
    pq.write_table(table, folder / "manifest.parquet", **options)
    return str(folder)


def test_a_manifest_of_older_code_is_read_and_has_its_digest() -> None:
    manifest = read_manifest(str(OLD))
    assert manifest.digest == OLD_DIGEST == as_text(manifest.table.to_pylist())
    assert manifest.table.equals(pq.read_table(OLD / "manifest.parquet"))
    assert manifest.names[[0, 39]] == manifest.column("id")[[0, 39]].tolist()
    assert manifest.words("speaker") == ["anna", "ben", "小明"]


def test_what_is_written_has_not_changed(tmp_path) -> None:
    manifest = read_manifest(str(OLD))
    header = {name: value for name, value in manifest.header.items() if name != "digest"}
    write_manifest(str(tmp_path / "new"), header, manifest.table.take(np.arange(40)[::-1]))
    for name in ("manifest.json", "manifest.parquet"):
        assert (tmp_path / "new" / name).read_bytes() == (OLD / name).read_bytes()


@pytest.mark.parametrize("count", [0, 1, 3, 300])
@pytest.mark.parametrize("at_a_time", [2, 7, 1000])
def test_values_in_any_number_of_parts(tmp_path, monkeypatch, count, at_a_time) -> None:
    monkeypatch.setattr(columns_module, "AT_A_TIME", at_a_time)
    rows = entries(count)
    manifest = read_manifest(written(tmp_path, rows, row_group_size=50))
    assert manifest.digest == as_text(rows)
    assert len(manifest) == count
    assert manifest.table.to_pylist() == rows
    some = np.random.default_rng(1).integers(0, max(count, 1), min(count, 20))
    for name in COLUMNS.names:
        values = [row[name] for row in rows]
        assert manifest.column(name).tolist() == values
        assert manifest.values(name, some) == [values[row] for row in some]
        assert manifest.values(name, some.tolist()) == [values[row] for row in some]
    assert manifest.places(some) == [(rows[row]["shard"], rows[row]["row"]) for row in some]
    assert manifest.names[some] == [rows[row]["id"] for row in some]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("limit", [0, 5, 10_000])
def test_rows_of_a_split(tmp_path, monkeypatch, split, limit) -> None:
    monkeypatch.setattr(columns_module, "AT_A_TIME", 7)
    rows = entries(300)
    manifest = read_manifest(written(tmp_path, rows))
    own = [number for number, row in enumerate(rows) if row["split"] == split]
    assert manifest.rows(split).tolist() == own
    frames, phones = manifest.lengths(split)
    assert frames.tolist() == [rows[number]["frames"] for number in own]
    assert phones.tolist() == [rows[number]["phones"] for number in own]
    assert manifest.having("split", split).nonzero()[0].tolist() == own

    # of the utterances that are long enough, those whose ids have the least hashes
    long_enough = np.array([number for number in own if rows[number]["frames"] >= 10], np.int64)
    hashes = pd.util.hash_array(np.array([rows[number]["id"] for number in long_enough], object))
    expected = long_enough[np.argsort(hashes, kind="stable")][:limit]
    assert manifest.sample(split, limit, 10).tolist() == expected.tolist()


def test_counts(tmp_path) -> None:
    rows = entries(100)
    manifest = read_manifest(written(tmp_path, rows))
    spoken = [row["speaker"] for row in rows if row["language"] == "JP"]
    counted = manifest.counts("speaker", manifest.having("language", "JP"))
    assert counted == {speaker: spoken.count(speaker) for speaker in spoken}
    assert manifest.counts("speaker", manifest.having("language", "KO")) == {}


@pytest.mark.parametrize(
    "keys",
    [
        ["00ff", "a0b1", "0000"],
        ["00ff", "A0B1", "0000"],  # capitals would come back small
        ["00ff", "a0b", "000000"],
        ["0ff", "a0b", "000"],
        ["k1", "k2", "é"],
        ["", "", ""],
    ],
)
@pytest.mark.parametrize("group", [1, 3])
def test_keys_of_any_kind_come_back(tmp_path, keys, group) -> None:
    rows = [row | {"key": key} for row, key in zip(entries(3), keys, strict=True)]
    manifest = read_manifest(written(tmp_path, rows, row_group_size=group))
    assert manifest.column("key").tolist() == keys
    assert manifest.values("key", [2, 0]) == [keys[2], keys[0]]
    assert manifest.digest == as_text(rows)


def test_many_speakers(tmp_path) -> None:
    rows = [row | {"speaker": f"p{number}"} for number, row in enumerate(entries(300))]
    manifest = read_manifest(written(tmp_path, rows))
    assert manifest.values("speaker", [0, 127, 128, 299]) == ["p0", "p127", "p128", "p299"]


def test_empty_cells_count_as_they_did(tmp_path) -> None:
    rows = [dict.fromkeys(COLUMNS.names), entries(1)[0] | {"id": None}]
    table = pa.Table.from_pylist(rows, COLUMNS)
    assert write_manifest(str(tmp_path), {"speakers": {}}, table).digest in (
        as_text(rows),
        as_text(rows[::-1]),
    )


@pytest.mark.parametrize("name", ["id", "key", "speaker", "language", "split"])
def test_empty_texts_are_read_as_they_were(tmp_path, name) -> None:
    rows = [row | ({name: None} if at % 3 == 1 else {}) for at, row in enumerate(entries(9))]
    table = pa.Table.from_pylist(rows, COLUMNS)
    header = {"speakers": {}, "schema_version": SCHEMA_VERSION, "digest": as_text(rows)}
    pq.write_table(table, tmp_path / "manifest.parquet", row_group_size=2)
    (tmp_path / "manifest.json").write_text(json.dumps(header))
    manifest = read_manifest(str(tmp_path))
    assert manifest.table.to_pylist() == rows
    assert manifest.values(name, range(9)) == [row[name] for row in rows]


def test_at_most_64_bytes_per_row_beside_names_and_dictionaries(tmp_path) -> None:
    rows = entries(20_000)
    rows = [row | {"shard": f"shards/{number // 256}"} for number, row in enumerate(rows)]
    read_manifest(written(tmp_path, rows))
    (shared,) = tmp_path.glob("bert_vits2_ray-*/*.rows.arrow")
    assert shared.stat().st_size < 64 * len(rows)


@pytest.mark.parametrize("lost", COLUMNS.names)
def test_a_table_without_a_column_is_damaged(tmp_path, lost) -> None:
    folder = written(tmp_path, entries(5))
    path = tmp_path / "manifest.parquet"
    pq.write_table(pq.read_table(path).drop_columns([lost]), path)
    with pytest.raises(ManifestError, match=r"manifest\.parquet is damaged .*prepare again"):
        read_manifest(folder)


def test_a_table_of_other_types_is_damaged(tmp_path) -> None:
    folder = written(tmp_path, entries(5))
    path = tmp_path / "manifest.parquet"
    table = pq.read_table(path)
    words = pa.array(["many"] * 5)
    pq.write_table(table.set_column(table.column_names.index("frames"), "frames", words), path)
    with pytest.raises(ManifestError, match=r"manifest\.parquet is damaged"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["frames", "phones", "samples", "row"])
def test_lengths_and_places_have_no_empty_cells(tmp_path, name) -> None:
    folder = written(tmp_path, [row | {name: None} for row in entries(3)])
    with pytest.raises(ManifestError, match=f"damaged .{name} has empty cells"):
        read_manifest(folder)


def test_a_header_without_a_digest_names_no_table(tmp_path) -> None:
    folder = written(tmp_path, entries(3))
    header = json.loads((tmp_path / "manifest.json").read_text())
    del header["digest"]
    (tmp_path / "manifest.json").write_text(json.dumps(header))
    with pytest.raises(ManifestError, match=r"not the table that manifest\.json names"):
        read_manifest(folder)


def test_every_flipped_byte_is_noticed(tmp_path) -> None:
    """What is cut or changed is damage, or another table; or what the digest does not cover."""
    folder = written(tmp_path, entries(30))
    path = tmp_path / "manifest.parquet"
    intact = path.read_bytes()
    before = read_manifest(folder)
    for at in range(4, len(intact), 97):
        path.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
        try:
            read = read_manifest(folder)
        except ManifestError:
            continue
        assert all((read.column(n) == before.column(n)).all() for n in DIGESTED)


def test_the_same_corpus_in_other_places(tmp_path) -> None:
    """The digest does not tell places, so the shared file must not go by it alone."""
    rows = entries(20)
    first = read_manifest(written(tmp_path / "shards", rows))
    moved = [row | {"shard": "shards/other.parquet"} for row in rows]
    shutil.rmtree(tmp_path / "shards")
    second = read_manifest(written(tmp_path / "shards", moved))
    assert first.digest == second.digest
    assert first.words("shard") != second.words("shard") == ["shards/other.parquet"]
