"""The manifest: which versions are read, which are refused, and what survives them."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from data.shards.manifest import (
    COLUMNS,
    SCHEMA_VERSION,
    ManifestError,
    known_speakers,
    read_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    write_manifest(str(tmp_path), {"speakers": {"anna": 0, "ben": 1}}, COLUMNS.empty_table())
    return tmp_path


def change(folder: Path, **changes: object) -> None:
    header = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(header))


def test_a_trailing_slash_changes_nothing(folder) -> None:
    assert read_manifest(f"{folder}/").digest == read_manifest(str(folder)).digest


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_another_version_is_refused(folder, version: int) -> None:
    change(folder, schema_version=version)
    with pytest.raises(
        ManifestError, match=f"schema version {version}, this code reads {SCHEMA_VERSION}"
    ):
        read_manifest(str(folder))


def test_an_older_version_is_brought_up_to_date_and_a_newer_one_left_alone(folder) -> None:
    change(folder, schema_version=SCHEMA_VERSION - 1)
    assert known_speakers(str(folder)) == {"anna": 0, "ben": 1}
    change(folder, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(ManifestError, match=r"newer than this code's .*data\.shards"):
        known_speakers(str(folder))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"schema_version": "2", "speakers": {}}']
)
def test_a_damaged_header_is_named(folder, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    for read in (read_manifest, known_speakers):
        with pytest.raises(ManifestError, match=r"manifest\.json is damaged"):
            read(str(folder))


def test_a_damaged_table_is_named(folder) -> None:
    intact = (folder / "manifest.parquet").read_bytes()
    (folder / "manifest.parquet").write_bytes(intact[: len(intact) // 2])
    with pytest.raises(ManifestError, match=r"manifest\.parquet is damaged"):
        read_manifest(str(folder))
    rows = [dict.fromkeys(COLUMNS.names)]
    write_manifest(str(folder), {"speakers": {}}, pa.Table.from_pylist(rows, COLUMNS))
    (folder / "manifest.parquet").write_bytes(intact)
    with pytest.raises(ManifestError, match=r"not the table that manifest\.json names"):
        read_manifest(str(folder))
