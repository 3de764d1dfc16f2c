"""Tables that a node's processes share: made once, mapped by all, made again when damaged."""

import logging
import os
import resource
import shutil
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from data.files import PART_SUFFIX
from data.shards.manifest import COLUMNS, ManifestError, read_manifest
from data.shards.node_files import SETS_KEPT, SUFFIX, node_tables, own_folder
from tests.data.shards.test_columns import entries, written
from tests.flaky import flaky_bucket
from tests.processes import run_in_processes

ROWS = 500


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def shards(tmp_path) -> str:
    return written(tmp_path / "shards", entries(ROWS))


def shared_files(temporary: Path, name: str = "*") -> list[Path]:
    return sorted(temporary.glob(f"bert_vits2_ray-*/*.{name}{SUFFIX}"))


def mapped_files() -> set[str]:
    """Return the shared files that this process maps, by inode."""
    maps = Path("/proc/self/maps").read_text()
    return {line.split()[4] for line in maps.splitlines() if line.endswith(SUFFIX)}


def look(rank: int, shards: str, temporary: str, seen: str) -> None:
    """Read a manifest as a process of its own; note what it maps, and the sum of the lengths."""
    import tempfile

    tempfile.tempdir = temporary
    manifest = read_manifest(shards)
    total = int(manifest.column("frames").sum())
    Path(f"{seen}/{rank}").write_text(f"{sorted(mapped_files())} {total} {manifest.names[[3]]}")


@pytest.mark.processes
def test_processes_map_the_same_files(shards, temporary, tmp_path) -> None:
    (tmp_path / "seen").mkdir()
    run_in_processes(look, shards, str(temporary), str(tmp_path / "seen"), count=2)
    first, second = ((tmp_path / "seen" / str(rank)).read_text() for rank in (0, 1))
    inodes = sorted(str(path.stat().st_ino) for path in shared_files(temporary))
    manifest = read_manifest(shards)
    total = sum(row["frames"] for row in entries(ROWS))
    assert len(inodes) == 2
    assert first == second == f"{inodes} {total} {manifest.names[[3]]}"


def make_slowly(rank: int, temporary: str, made: str) -> None:
    """Ask for a table that takes a while, with others."""
    import tempfile

    tempfile.tempdir = temporary

    def make() -> dict[str, pa.Table]:
        with Path(made).open("a") as file:
            file.write(f"{rank}\n")
        time.sleep(0.3)
        return {"a": pa.table({"x": [7]})}

    assert node_tables("k", ("a",), make)["a"].to_pylist() == [{"x": 7}]


@pytest.mark.processes
def test_one_process_makes_what_many_ask_for(temporary, tmp_path) -> None:
    made = tmp_path / "made"
    run_in_processes(make_slowly, str(temporary), str(made), count=3)
    assert len(made.read_text().split()) == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("name", ["rows", "names"])
@pytest.mark.parametrize("damage", [cut, flip, grow, empty, fill_with_zeros, Path.unlink])
def test_a_damaged_file_is_made_again(shards, temporary, name, damage) -> None:
    before = read_manifest(shards).table.to_pylist()
    (path,) = shared_files(temporary, name)
    intact = path.read_bytes()
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)  # so that what is mapped stays intact
    damage(path)
    assert read_manifest(shards).table.to_pylist() == before
    assert path.read_bytes() == intact


def test_who_has_a_file_mapped_keeps_it(shards, temporary) -> None:
    manifest = read_manifest(shards)
    for path in shared_files(temporary):
        path.unlink()
    assert manifest.table.to_pylist() == entries(ROWS)


def in_the_way(temporary: Path) -> None:
    (temporary / f"bert_vits2_ray-{os.getuid()}").write_text("a file")


def open_to_all(temporary: Path) -> None:
    own_folder().chmod(0o777)


def linked(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"bert_vits2_ray-{os.getuid()}").symlink_to(temporary / "elsewhere")


def gone(temporary: Path) -> None:
    temporary.rmdir()


def locked_by_a_folder(temporary: Path) -> None:
    (own_folder() / "lock").mkdir()


@pytest.mark.parametrize("trouble", [in_the_way, open_to_all, linked, gone, locked_by_a_folder])
def test_without_a_folder_a_process_holds_it_itself(shards, temporary, trouble, caplog) -> None:
    trouble(temporary)
    with caplog.at_level(logging.WARNING, "bert_vits2_ray"):
        manifest = read_manifest(shards)
    assert manifest.table.to_pylist() == entries(ROWS)
    assert not shared_files(temporary)
    (line,) = caplog.messages
    assert "set TMPDIR to a folder with room that can be written" in line


def test_a_full_disk_leaves_nothing_behind(shards, temporary, caplog) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        manifest = read_manifest(shards)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert manifest.table.to_pylist() == entries(ROWS)
    assert [path.name for path in own_folder().iterdir()] == ["lock"]
    assert "File too large" in caplog.text


def test_only_the_sets_used_last_are_kept(tmp_path, temporary) -> None:
    folders = [written(tmp_path / str(n), entries(5, seed=n)) for n in range(SETS_KEPT + 3)]
    read_manifest(folders[0])
    (own_folder() / f"x.rows{SUFFIX}.1{PART_SUFFIX}").write_text("of a killed process")
    first = shared_files(temporary)
    for folder in folders[1:]:
        read_manifest(folder)
        time.sleep(0.01)
        read_manifest(folders[0])  # in use
    assert len(shared_files(temporary)) == 2 * SETS_KEPT
    assert set(first) < set(shared_files(temporary))
    assert not list(own_folder().glob(f"*{PART_SUFFIX}"))


def test_an_error_of_the_store_is_no_error_of_the_folder(tmp_path, temporary) -> None:
    folder = Path(written(tmp_path / "shards", entries(5)))
    (folder / "manifest.parquet").unlink()
    with pytest.raises(ManifestError, match="holds no prepared shards"):
        read_manifest(str(folder))
    assert not shared_files(temporary)
    written(folder, entries(5))
    assert len(read_manifest(str(folder))) == 5  # nobody holds the lock


@pytest.mark.medium
def test_an_object_store_sends_the_table_once(tmp_path, temporary) -> None:
    folder = written(tmp_path / "shards", entries(ROWS))
    other = written(tmp_path / "other", entries(ROWS, seed=1))
    with flaky_bucket() as (store, _):
        another = fsspec.filesystem("s3", skip_instance_cache=True)
        another.put(f"{folder}/", "bucket/corpus/", recursive=True)
        manifest = read_manifest("s3://bucket/corpus")
        assert manifest.table.to_pylist() == entries(ROWS)
        read_manifest("s3://bucket/corpus/")
        asked = [line for line in store.requests if "manifest.parquet" in line]
        assert sum(line.startswith("GET") for line in asked) == 1

        fsspec.filesystem("s3").ls("bucket/corpus")  # a listing that is old soon
        another.put(f"{other}/", "bucket/corpus/", recursive=True)
        assert read_manifest("s3://bucket/corpus").table.to_pylist() == entries(ROWS, seed=1)


def test_numpy_sees_the_file_itself(shards) -> None:
    """No copy: what a process holds does not grow with the corpus."""
    manifest = read_manifest(shards)
    before = pa.total_allocated_bytes()
    arrays = [manifest.column(name) for name in ("frames", "phones", "samples", "row")]
    arrays += [manifest.rows("train"), *manifest.lengths("train")]
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
    assert manifest.places(np.arange(20)) == [
        (row["shard"], row["row"]) for row in entries(ROWS)[:20]
    ]
    assert pa.total_allocated_bytes() <= before  # less, where tables of earlier tests were freed
    assert set(COLUMNS.names) == set(manifest.table.column_names)
