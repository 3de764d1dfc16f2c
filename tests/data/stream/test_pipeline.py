"""Ray Data executes the plan: every worker gets its micro-batches of each step, in order, from any position."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
import torch

from data.audio.recording import encode_flac
from data.config import BertConfig, DataConfig, PlanConfig
from data.corpus.writer import stored_spectrogram
from data.plan.epoch_plan import Position
from data.shards.manifest import COLUMNS, read_manifest, write_manifest
from data.shards.shard import ShardReader, write_shard
from data.stream.collate import collate
from data.stream.loading import BadRowsError
from data.stream.pipeline import (
    Damage,
    MicroBatchStream,
    StreamSpec,
    advance,
    dataset_rows,
    evaluation_rows,
    evaluation_set,
    plan_of,
)

G = 4


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> StreamSpec:
    return make_corpus(str(tmp_path_factory.mktemp("shards")))


def make_corpus(uri: str, rows_per_shard: int = 20) -> StreamSpec:
    """Twenty short utterances of noise, written as shards."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(20):
        frames, tokens = int(rng.integers(20, 60)), 5
        rows.append(
            {
                "id": f"{i:02d}",
                "key": f"k{i}",
                "speaker": "ab"[i % 2],
                "language": ("ZH", "JP", "EN")[i % 3],
                "text": "x",
                "norm_text": "x",
                "phones": ["_", "a", "a", "a", "_"],
                "tones": [0] * 5,
                "word2ph": [1] * tokens,
                "audio": encode_flac(
                    rng.uniform(-0.5, 0.5, frames * 512).astype(np.float32), 44100
                ),
                "samples": frames * 512,
                "frames": frames,
                "bert": rng.standard_normal((tokens, 8)).astype(np.float16).tobytes(),
                "bert_width": 8,
                "spec": b"",
            }
        )
    shards = [write_shard(uri, rows[i : i + rows_per_shard]) for i in range(0, 20, rows_per_shard)]
    table = [
        {
            **{name: row.get(name) for name in COLUMNS.names},
            "split": "validation" if i >= 17 else "train",
            "phones": 5,
            "shard": shards[i // rows_per_shard],
            "row": i % rows_per_shard,
        }
        for i, row in enumerate(rows)
    ]
    manifest = write_manifest(
        uri,
        {"speakers": {"a": 0, "b": 1}, "spectrograms": False},
        pa.Table.from_pylist(table, COLUMNS),
    )
    cfg = DataConfig(shards=uri, plan=PlanConfig(max_frames=120, max_utterances=3))
    return StreamSpec(cfg, manifest.digest, seed=3, micro_batches_per_step=G, segment_frames=8)


def take(
    spec: StreamSpec, first: Position, max_steps: int, world_size: int, errors: list | None = None
) -> list[dict[int, list[int]]]:
    """What W workers, each in a thread, receive: a dict slot -> rows a step; and the errors that end them."""
    box: list = []
    barrier = threading.Barrier(world_size)

    def share(thing, rank):
        if rank == 0:
            box[:] = [thing]
        barrier.wait()
        shared = box[0]
        barrier.wait()
        return shared

    taken: list[list] = [[] for _ in range(world_size)]

    found: dict[int, str] = {}

    def agree(error: str, rank: int) -> str:
        found[rank] = error
        barrier.wait()
        agreed = next(filter(None, map(found.get, range(world_size))), "")
        barrier.wait()
        return agreed

    def work(rank: int) -> None:
        damage = Damage(lambda error: agree(error, rank))
        stream = MicroBatchStream(
            spec,
            first,
            max_steps,
            rank,
            world_size,
            lambda thing: share(thing, rank),
            damage=damage,
        )
        try:
            for micro_batches in stream:
                taken[rank].append({m.slot: m.batch.rows.tolist() for m in micro_batches})
        except BadRowsError as error:
            assert errors is not None, error
            errors.append(str(error))

    threads = [
        threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(world_size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [
        {slot: rows for part in step for slot, rows in part.items()}
        for step in zip(*taken, strict=True)
    ]


def expected(spec: StreamSpec, first: Position, max_steps: int) -> list[dict[int, list[int]]]:
    position, steps = first, []
    while position.step < max_steps:
        plan = plan_of(spec, position.epoch)
        steps.append({j: plan.micro_batch(position.epoch_step, j).tolist() for j in range(G)})
        position = advance(spec, position)
    return steps


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_number_of_workers_gets_the_plan(spec, world_size):
    steps = 2 * plan_of(spec, 0).steps + 1  # over epoch ends
    assert take(spec, Position(), steps, world_size) == expected(spec, Position(), steps)


@pytest.mark.usefixtures("ray_local")
def test_a_stream_opens_at_any_position_and_over_several_datasets(spec, monkeypatch):
    monkeypatch.setattr("data.stream.pipeline.ROWS_OF_FIRST_DATASET", 0)
    monkeypatch.setattr("data.stream.pipeline.ROWS_PER_DATASET", 0)
    first = advance(spec, advance(spec, Position()))
    # 4 of its own, and datasets of 4, 4 and 1
    assert take(spec, first, 15, 2) == expected(spec, first, 15)


@pytest.mark.usefixtures("ray_local")
def test_a_stopped_stream_leaves_room_for_another(spec):
    """As after a roll-back: the loaders of either take all of the CPUs."""
    wait_for(lambda: not processes("SplitCoordinator", "Pace"))  # of the tests before
    spec = replace(spec, data=replace(spec.data, loaders=2, prefetch_steps=6))
    stream = MicroBatchStream(spec, Position(), 40, 0, 1, lambda thing: thing)
    first, steps = Position(), iter(stream)
    for _ in range(3):
        next(steps)
        first = advance(spec, first)
    wait_for(lambda: len(processes("SplitCoordinator", "Pace")) == 2)
    stream.stop()
    assert take(spec, first, 9, 2) == expected(spec, first, 9)
    wait_for(
        lambda: (
            ray.available_resources().get("CPU", 0) == 2
            and not processes("SplitCoordinator", "Pace")
        )
    )


@pytest.mark.usefixtures("ray_local")
def test_a_stream_outlives_its_dataset(spec, caplog):
    """As on a node that is going, where Ray places nothing any more."""
    stream, taken = MicroBatchStream(spec, Position(), 12, 0, 1, lambda thing: thing), []
    for step, micro_batches in enumerate(stream):
        taken.append({m.slot: m.batch.rows.tolist() for m in micro_batches})
        if step == 5:  # of which 4 are the worker's own
            ray.kill(stream.executions[-1])
    assert taken == expected(spec, Position(), 12)
    assert "this worker reads its shards itself" in caplog.text


def wait_for(reached: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, f"still there: {processes('')}"
        time.sleep(0.2)


def processes(*names: str) -> list[str]:
    """Ray's processes below this one that have one of these names."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            found.append(process.name())
    return [
        name for name in found if name.startswith("ray::") and any(part in name for part in names)
    ]


def test_uneven_shares_are_padded_with_rows_that_cost_nothing(spec):
    rows = dataset_rows(spec, Position(), 2, 3)
    assert len(rows) == 2 * 6
    assert [r["slot"] for r in rows] == [*range(6), *range(6)]
    assert [len(r["rows"]) == 0 for r in rows] == [False] * 4 + [True] * 2 + [False] * 4 + [
        True
    ] * 2


def test_more_workers_than_micro_batches_are_refused(spec):
    with pytest.raises(ValueError, match=r"train\.micro_batches_per_step"):
        MicroBatchStream(spec, Position(), 1, 0, G + 1, lambda thing: thing)


def test_another_manifest_is_refused(spec):
    with pytest.raises(ValueError, match="prepared again"):
        plan_of(replace(spec, digest="0" * 64), 0)


def test_validation_utterances_are_shared_and_fixed(spec):
    rows, manifest = evaluation_rows(spec, "validation", 64), read_manifest(spec.data.shards)
    assert sorted(manifest.column("id")[rows].tolist()) == ["17", "18", "19"]
    assert evaluation_rows(spec, "validation", 2).tolist() == rows[:2].tolist()
    assert len(evaluation_rows(spec, "train", 5)) == 5
    shares = [list(evaluation_set(spec, rows, rank, 2, Damage())) for rank in (0, 1)]
    assert [[u.number for u in share] for share in shares] == [[0, 2], [1]]
    first = shares[0][0]
    assert (first.row, first.language) == (rows[0], manifest.column("language")[rows[0]])
    assert first.text
    batch = first.batch
    assert batch.x.shape[0] == 1
    assert batch.spec.shape[1:] == (1025, int(batch.spec_lengths[0]))


def test_both_places_of_the_spectrogram_agree(spec):
    rows = evaluation_rows(spec, "validation", 1)
    here = next(evaluation_set(spec, rows, 0, 1, Damage())).batch
    device = replace(spec, data=replace(spec.data, spectrogram_on="device"))
    there = next(evaluation_set(device, rows, 0, 1, Damage())).batch
    assert there.spec is None
    assert (there.with_spectrogram(device.data).spec - here.spec).abs().max() < 1e-4


def test_stored_spectrograms_have_the_bits_of_computed_ones(spec):
    """As preparation makes them, one utterance at a time, and as loaders do, in batches of several lengths."""
    manifest, reader = read_manifest(spec.data.shards), ShardReader(spec.data.shards)
    rows = [reader.row(place["shard"], place["row"]) for place in manifest.table.to_pylist()[:5]]
    stored = replace(spec.data, spectrogram_on="shards")
    computed = collate(rows, range(5), manifest.speakers, spec.data)["spec"]
    rows = [row | {"spec": stored_spectrogram(row["audio"], stored)} for row in rows]
    read = collate(rows, range(5), manifest.speakers, stored)["spec"]
    assert read.dtype == computed.dtype == np.float32
    assert np.array_equal(read, computed)


def test_shards_without_spectrograms_are_refused_where_they_are_asked_for(spec):
    with pytest.raises(ValueError, match=r"data\.spectrogram_on is shards"):
        plan_of(replace(spec, data=replace(spec.data, spectrogram_on="shards")), 0)


def test_inactive_languages_hear_noise_that_follows_from_the_seed_alone(spec):
    noisy = replace(spec, data=replace(spec.data, bert=BertConfig(inactive="noise")))
    rows = evaluation_rows(spec, "validation", 3)
    zeros = {u.number: u.batch for u in evaluation_set(spec, rows, 0, 1, Damage())}
    for utterance in evaluation_set(noisy, rows, 0, 1, Damage()):
        number, batch = utterance.number, utterance.batch
        torch.manual_seed(number)
        parts = batch.bert_features()
        torch.manual_seed(number)
        again = batch.to(torch.device("cpu")).bert_features()
        active = int(batch.language[0, 1])
        for language, (part, other, zero) in enumerate(
            zip(parts, again, zeros[number].bert_features(), strict=True)
        ):
            assert torch.equal(part, other)
            if language == active:
                assert torch.equal(part, zero)
            else:
                assert 0.5 < part.std() < 1.5


def test_bert_features_reach_their_language_and_their_phones(spec):
    for utterance in evaluation_set(spec, evaluation_rows(spec, "validation", 3), 0, 1, Damage()):
        number, batch = utterance.number, utterance.batch
        parts = batch.bert_features()
        active = int(batch.language[0, 1])
        assert [bool(p.abs().sum() > 0) for p in parts] == [i == active for i in range(3)], number
        # the first token's features stand on its blank, its phone and the blank behind it
        assert (parts[active][0, :, :3] == batch.bert[0, 0].float()[:, None]).all()
        assert parts[active].shape == (1, 8, 11)
