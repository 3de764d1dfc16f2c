"""Which preparation added which row: from manifest to manifest, and what a run makes of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import data.stream.spec
from data.plan.blocks import BLOCK
from data.plan.history import begun
from data.shards.columns import GENERATION
from data.shards.generations import with_generations
from data.shards.manifest import GENERATION_COLUMNS, Manifest, read_manifest, write_manifest
from data.stream.spec import schedule_of
from tests.data.stream.corpus import UTTERANCES, make_corpus


@pytest.fixture
def spec(tmp_path):
    return make_corpus(str(tmp_path))


def prepared(uri: str, table: pa.Table) -> Manifest:
    """Write a manifest as preparation does."""
    return write_manifest(
        uri, {"speakers": {}, "spectrograms": False}, with_generations(uri, table)
    )


def generations(manifest: Manifest) -> dict[str, int]:
    found = dict.fromkeys(manifest.column("id"), 0)
    if manifest.generations:
        found = dict(zip(found, manifest.table.column(GENERATION).to_pylist(), strict=True))
    return found


def with_column(manifest: Manifest, numbers: np.ndarray) -> Manifest:
    """Write a manifest again whose rows have these generations."""
    column = pa.array(numbers, pa.int32())
    names = [name for name in manifest.table.column_names if name != GENERATION]
    table = manifest.table.select(names).append_column(GENERATION_COLUMNS.field(0), column)
    return write_manifest(manifest.uri, manifest.header, table)


def test_rows_keep_their_number_and_new_ones_have_the_next(tmp_path, spec):
    rows = read_manifest(spec.data.shards).table
    names = rows.column("id").to_pylist()
    uri = str(tmp_path / "grown")
    first = prepared(uri, rows.slice(0, 10))
    assert first.generations is None
    assert GENERATION not in first.table.column_names
    prepared(uri, rows.slice(0, 15))
    third = prepared(uri, rows)
    wanted = [0] * 10 + [1] * 5 + [2] * 5
    assert generations(third) == dict(zip(names, wanted, strict=True))
    assert generations(read_manifest(uri)) == generations(third)
    assert read_manifest(uri).header == third.header

    # nothing new; and those that are left count from 0
    assert prepared(uri, rows).header == third.header
    assert generations(prepared(uri, rows.slice(5, 10))) == dict(
        zip(names[5:15], wanted[5:15], strict=True)
    )
    assert prepared(uri, rows.slice(10, 5)).generations is None


def test_it_is_no_part_of_the_digest_but_is_verified(spec):
    manifest = read_manifest(spec.data.shards)
    again = with_column(manifest, np.arange(UTTERANCES) % 3)
    assert again.digest == manifest.digest
    assert again.generations is not None
    for split in ("train", "validation"):
        own = again.columns.generations(split)
        assert own.dtype == np.uint8
        assert own.tolist() == [row % 3 for row in again.rows(split)]
    header = {**again.header, "generations": "0" * 64}
    Path(again.uri, "manifest.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"is not the table that manifest\.json names"):
        read_manifest(again.uri)


def test_a_run_follows_what_it_began_with_and_refuses_what_it_cannot_follow(spec):
    by_order = schedule_of(spec).plan(0).order.tolist()
    went_on = replace(spec, history=begun(replace(spec.cut, block=BLOCK)))
    grown = with_column(read_manifest(spec.data.shards), np.arange(UTTERANCES) % 2)
    _forget()
    assert schedule_of(went_on).plan(0).order.tolist() == by_order
    new = schedule_of(spec)
    assert new.cut.generations == grown.generations
    recorded = replace(spec, history=new.history)
    _forget()
    assert schedule_of(recorded).plan(0).order.tolist() == new.plan(0).order.tolist()
    with_column(read_manifest(spec.data.shards), np.arange(UTTERANCES) % 3)
    _forget()
    with pytest.raises(ValueError, match="other preparations added them"):
        schedule_of(recorded)


def _forget() -> None:
    """Read manifests again, as another process does."""
    data.stream.spec._known.clear()
    schedule_of.cache_clear()
