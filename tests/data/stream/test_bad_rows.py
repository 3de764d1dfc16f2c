"""Damaged rows in training: named, and refused or replaced alike for any number of workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from data.files import UnreachableError
from data.plan.epoch_plan import Position
from data.shards.manifest import Manifest, read_manifest
from data.shards.shard import ShardError, ShardReader
from data.stream.damage import BadRowsError
from data.stream.loading import RowLoader
from data.stream.spec import StreamSpec, schedule_of
from tests.data.stream.corpus import make_corpus
from tests.data.stream.ranks import expected, take


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> tuple[StreamSpec, Manifest, set[int]]:
    """Ten shards: one is gone, one is cut short, one has a flipped bit in the audio of a row."""
    uri = str(tmp_path_factory.mktemp("shards"))
    spec = make_corpus(uri, rows_per_shard=2)
    manifest = read_manifest(uri)
    places = manifest.table.to_pylist()
    train = [row for row in manifest.rows("train").tolist() if places[row]["row"] == 0]
    gone, cut, flipped = train[0], train[3], train[5]
    bad = {
        row
        for row in range(20)
        if places[row]["shard"] in (places[gone]["shard"], places[cut]["shard"])
    }
    Path(uri, places[gone]["shard"]).unlink()
    path = Path(uri, places[cut]["shard"])
    path.write_bytes(path.read_bytes()[:200])
    path = Path(uri, places[flipped]["shard"])
    content = bytearray(path.read_bytes())
    audio = ShardReader(uri).row(places[flipped]["shard"], 0)["audio"]
    content[content.index(audio) + 900] ^= 4
    path.write_bytes(content)
    return spec, manifest, bad | {flipped}


def policy(spec: StreamSpec, bad_rows: str) -> StreamSpec:
    return replace(spec, data=replace(spec.data, bad_rows=bad_rows))


def nearest(manifest: Manifest, bad: set[int], row: int) -> int:
    """Return what replaces a row, by the rule written a second time."""
    alike = [r for r in range(20) if manifest.column("split")[r] == manifest.column("split")[row]]
    at = alike.index(row)
    intact = [i for i, r in enumerate(alike) if r not in bad]
    return alike[min(intact, key=lambda i: (abs(i - at), i))]


@pytest.mark.usefixtures("ray_local")
def test_any_number_of_workers_replaces_the_same_rows_by_the_same(damaged):
    spec, manifest, bad = damaged
    spec = policy(spec, "replace")
    steps = schedule_of(spec).plan(0).steps + 1
    wanted = [
        {slot: [nearest(manifest, bad, row) for row in rows] for slot, rows in step.items()}
        for step in expected(spec, Position(), steps)
    ]
    assert wanted != expected(spec, Position(), steps)
    for world_size in (1, 2, 3):
        assert take(spec, Position(), steps, world_size) == wanted


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_refused_rows_end_all_workers_before_the_same_step(damaged, world_size):
    spec, manifest, bad = damaged
    errors: list[str] = []
    taken = take(spec, Position(), 9, world_size, errors)
    steps = expected(spec, Position(), 9)
    first = next(
        i for i, step in enumerate(steps) if bad & {row for rows in step.values() for row in rows}
    )
    assert taken == steps[:first]
    assert len(errors) == world_size
    assert len(set(errors)) == 1
    rows = [row for batch in steps[first].values() for row in batch if row in bad]
    names = [f"utterance {manifest.column('id')[row]}: " for row in rows]
    assert errors[0].startswith(tuple(names))
    assert "data.bad_rows" in errors[0]
    assert "shards/" in errors[0]


def test_a_replacement_names_utterance_shard_row_and_reason(damaged):
    spec, manifest, bad = damaged
    row = min(bad & set(manifest.rows("train").tolist()))
    loaded = RowLoader(manifest, policy(spec, "replace").data, 8).load(np.array([row]))
    place, names = manifest.table.to_pylist()[row], manifest.column("id")
    (line,) = loaded.replaced
    assert line.startswith(f"utterance {names[row]} (")
    assert place["shard"] in line
    assert line.endswith(f"is replaced by {names[nearest(manifest, bad, row)]}")
    assert loaded.arrays["rows"].tolist() == [nearest(manifest, bad, row)]


def test_audio_that_cannot_be_decoded_is_damage(tmp_path):
    spec = make_corpus(str(tmp_path), audio=b"no FLAC")
    loader = RowLoader(read_manifest(str(tmp_path)), spec.data, 8)
    assert "has no audio" in loader.load(np.array([0])).error
    everything = RowLoader(read_manifest(str(tmp_path)), policy(spec, "replace").data, 8)
    assert "no utterance like" in everything.load(np.array([0])).error


def test_short_utterances_take_nobodys_place(damaged):
    spec, manifest, bad = damaged
    longest = int(manifest.column("frames").max())
    loader = RowLoader(manifest, policy(spec, "replace").data, longest)
    row = min(bad)
    with pytest.raises(BadRowsError, match="no utterance like"):
        for other in sorted(bad):  # at most one is that long
            loader.stand_in(other if manifest.column("frames")[other] < longest else row)


@settings(deadline=None, max_examples=60)
@given(
    bad=st.sets(st.integers(0, 16), min_size=1, max_size=16),
    batch=st.lists(st.integers(0, 16), min_size=1),
)
def test_the_replacement_is_a_rule_of_the_row_alone(bad, batch, clean):
    spec, manifest = clean
    loader = RowLoader(manifest, policy(spec, "replace").data, 0)
    train = manifest.rows("train").tolist()
    bad_rows = {train[i] for i in bad}
    loader._is_damaged = bad_rows.__contains__
    used = [loader.stand_in(train[i]) for i in batch]
    assert used == [
        nearest(manifest, bad_rows, train[i]) if train[i] in bad_rows else train[i] for i in batch
    ]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[StreamSpec, Manifest]:
    spec = make_corpus(str(tmp_path_factory.mktemp("shards")))
    return spec, read_manifest(spec.data.shards)


# by a shard's footer, and by the range that the manifest tells
READS = ((MemoryFile, "read"), (MemoryFileSystem, "cat_file"))


@pytest.fixture(params=[False, True])
def far(monkeypatch, request):
    """The corpus in an object store, which is asked again after short pauses."""
    monkeypatch.setattr("data.files.FIRST_PAUSE_S", 0.01)
    MemoryFileSystem.store.clear()
    yield policy(make_corpus("memory://far", ranges=request.param), "replace")
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize(
    "failure", [ConnectionError("reset"), TimeoutError("late"), RuntimeError("503 SlowDown")]
)
def test_a_store_that_fails_for_a_while_is_asked_again(far, monkeypatch, failure):
    failures = iter([failure] * 3)
    loader = RowLoader(read_manifest(far.data.shards), far.data, 8)
    for reads, name in READS:
        original = getattr(reads, name)

        def flaky(*args, original=original, **options):
            for error in failures:
                raise error
            return original(*args, **options)

        monkeypatch.setattr(reads, name, flaky)
    loaded = loader.load(np.array([3, 4]))
    assert loaded.arrays["rows"].tolist() == [3, 4]
    assert not loaded.replaced


@pytest.mark.parametrize(
    "failure", [ConnectionError("reset"), PermissionError("403"), RuntimeError("500")]
)
def test_a_store_that_does_not_answer_stops_the_run_and_replaces_nothing(far, monkeypatch, failure):
    monkeypatch.setattr("data.files.PATIENCE_S", 2)
    loader = RowLoader(read_manifest(far.data.shards), far.data, 8)

    def failing(*_, **__):
        raise failure

    for reads, name in READS:
        monkeypatch.setattr(reads, name, failing)
    loaded = loader.load(np.array([3, 4]))
    assert not loaded.arrays
    assert not loaded.replaced
    assert str(failure) in loaded.error
    assert not loader.damaged


def test_an_unreachable_shard_is_not_called_damaged(far, monkeypatch):
    monkeypatch.setattr("data.files.PATIENCE_S", 2)
    (shard,) = {row["shard"] for row in read_manifest(far.data.shards).table.to_pylist()}

    def failing(*_):
        raise ConnectionError("reset")

    monkeypatch.setattr(MemoryFile, "read", failing)
    with pytest.raises(UnreachableError, match="reset"):
        ShardReader("memory://far").row(shard, 0)
    monkeypatch.undo()
    with pytest.raises(ShardError, match="missing"):
        ShardReader("memory://far").row("shards/gone.parquet", 0)
