"""The loop, fed by the stream's thread: its order, its errors, its end, and a profile of it.

Networks, step and stream are real; one process stands in for Ray Data.
"""

import gzip
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from data.plan.epoch_plan import Position
from data.plan.history import begun
from data.stream import micro_batches
from data.stream.collate import to_batch
from data.stream.collectives import alone
from data.stream.damage import BadRowsError
from data.stream.feeding import Courier, Feed
from data.stream.loading import RowLoader, row_loader
from data.stream.micro_batches import MicroBatchStream
from data.stream.orders import order_of
from data.stream.packing import pack
from data.stream.spec import manifest_of, schedule_of
from job.settings.cli import run
from job.train import main
from tests.data.stream.corpus import BERT_WIDTH, make_corpus
from tests.tiny import tiny_config, tiny_state
from tests.trainable.worker.fakes import DRAINED, FakeWorker, fake_watchdog, worker_config
from tests.trainable.worker.test_loop import FakeCheckpoints, Left
from trainable.learning.step import TrainingStep
from trainable.run.metrics_file import read_metrics
from trainable.run.records import RunLog
from trainable.worker.loop import TrainingLoop

G = 1
STEPS = 6
OWN_STEPS = 4  # that the worker loads itself


class InProcess:
    """In place of Ray Data's datasets, of which it has the steps from OWN_STEPS on."""

    def __init__(self, spec, *_):
        self.schedule = schedule_of(spec)
        self.loader = row_loader(spec)
        self.steps: list[int] = []
        self.stopped = False

    def take(self, position: Position) -> list[pa.Table] | None:
        self.steps.append(position.step)
        if self.stopped or position.step < OWN_STEPS:
            return None
        order = order_of(self.schedule, position, [0], 1)
        return [
            pack({"step": order.step, "slot": slot}, self.loader.load(rows))
            for slot, rows in zip(order.slots, order.rows, strict=True)
        ]

    def close(self) -> None:
        self.stopped = True


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.setattr(micro_batches, "Datasets", InProcess)
    made = make_corpus(str(tmp_path / "shards"))
    return replace(made, history=begun(replace(made.cut, micro_batches_per_step=G)))


class Run:
    """A run of STEPS steps."""

    def __init__(self, spec, folder, notices=None, **train):
        cfg = tiny_config(max_steps=STEPS, micro_batches_per_step=G, log_every_steps=1, **train)
        cfg = replace(cfg, data=spec.data, model=replace(cfg.model, bert_channels=BERT_WIDTH))
        self.spec, self.cfg = spec, cfg
        self.state = tiny_state(cfg)
        self.streams: list[MicroBatchStream] = []
        self.loop = TrainingLoop(
            cfg=worker_config(cfg, str(folder)),
            worker=FakeWorker(notices),
            names=manifest_of(spec).column("id"),
            schedule=schedule_of(spec),
            open_stream=self.open_stream,
            state=self.state,
            train_step=TrainingStep(self.state, cfg.train, cfg.data),
            records=RunLog(str(folder), 0, writes=True),
            validator=SimpleNamespace(validate=lambda *_: {}),
            checkpoints=FakeCheckpoints([]),
            watchdog=fake_watchdog(),
        )

    def open_stream(self, first: Position) -> MicroBatchStream:
        self.streams.append(MicroBatchStream(self.spec, first, STEPS, 0, 1, alone))
        return self.streams[-1]


def losses_without_a_thread(run: Run) -> list[float]:
    state = tiny_state(run.cfg)
    step, loader = TrainingStep(state, run.cfg.train, run.cfg.data), row_loader(run.spec)
    position, found = Position(), []
    for _ in range(STEPS):
        plan = schedule_of(run.spec).plan(position.epoch)
        own = [
            (j, to_batch(loader.load(plan.micro_batch(position.epoch_step, j)).arrays))
            for j in range(G)
        ]
        report = step([(j, batch.with_spectrogram(run.cfg.data)) for j, batch in own])
        found.append(report.scalars["loss/g/total"].item())
        state.position = position = schedule_of(run.spec).after(position)
    return found


def no_feed_is_left() -> bool:
    deadline = time.monotonic() + 10
    while any(thread.name == "feed" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.medium
def test_a_run_trains_on_what_the_plan_says_and_writes_a_profile(spec, tmp_path):
    run = Run(spec, tmp_path / "run", profile_steps=(3, 3))
    run.loop.train_to_end()
    lines = read_metrics(str(tmp_path / "run"))
    assert [line["loss/g/total"] for line in lines] == losses_without_a_thread(run)
    assert run.state.position.step == STEPS
    assert run.streams[0].datasets.steps == list(range(STEPS))

    (trace,) = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == "steps-3-3-rank-0.json.gz"
    told = gzip.decompress(trace.read_bytes())
    # one per network, and nothing of other steps
    assert told.count(b'"Optimizer.step#AdamW.step"') == len(run.state.nets)
    assert no_feed_is_left()


@pytest.mark.medium
@pytest.mark.parametrize("bad", [2, 6])
def test_an_error_of_the_thread_comes_after_the_steps_before_it(spec, tmp_path, monkeypatch, bad):
    """In the worker's own steps and in those of a dataset."""
    original, count = Courier.ship, 0

    def ship(self, arrays):
        nonlocal count
        count += 1
        if count == bad:
            raise RuntimeError("the device is full")
        return original(self, arrays)

    monkeypatch.setattr(Courier, "ship", ship)
    run = Run(spec, tmp_path / "run")
    with pytest.raises(RuntimeError, match="the device is full"):
        run.loop.train_to_end()
    assert run.state.position.step == bad - 1
    assert no_feed_is_left()


@pytest.mark.medium
def test_bad_rows_end_the_run_before_the_step_that_needs_them(spec, tmp_path, monkeypatch):
    original = RowLoader.load
    bad = schedule_of(spec).plan(0).micro_batch(1, 0).tolist()

    def load(self, rows):
        loaded = original(self, rows)
        return replace(loaded, arrays={}, error="torn") if rows.tolist() == bad else loaded

    monkeypatch.setattr(RowLoader, "load", load)
    run = Run(spec, tmp_path / "run")
    with pytest.raises(BadRowsError, match="torn"):
        run.loop.train_to_end()
    assert run.state.position.step == 1
    assert no_feed_is_left()


@pytest.mark.medium
def test_a_run_that_is_left_leaves_no_thread_and_a_profile_so_far(spec, tmp_path):
    run = Run(spec, tmp_path / "run", {3: DRAINED}, profile_steps=(3, 5))
    try:
        run.loop.train_to_end()
    except Left:
        left = run.state.position.step
    assert left == 3
    (trace,) = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == "steps-3-3-rank-0.json.gz"
    assert no_feed_is_left()


def test_a_stopped_stream_reads_nothing_itself(spec, caplog):
    stream = MicroBatchStream(spec, Position(), 40, 0, 1, alone)
    steps = iter(stream)
    for _ in range(6):
        next(steps)
    stream.stop()
    assert len([1 for _ in steps]) <= 1  # the one that was ready
    assert no_feed_is_left()
    assert "reads its shards itself" not in caplog.text


def test_an_error_behind_the_end_is_told(caplog):
    reads_on, goes_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        reads_on.set()
        goes_on.wait(10)
        raise OSError("the disk is gone")

    with caplog.at_level("INFO"), Feed(items(), abs) as feed:
        assert next(feed) == 0
        assert reads_on.wait(10)
        threading.Timer(0.1, goes_on.set).start()  # while it is closed
    assert "the disk is gone" in caplog.text
    assert no_feed_is_left()


def test_one_item_is_made_ready_ahead_and_no_more():
    made: list[int] = []
    at_work = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number
            at_work.set()

    with Feed(items(), lambda number: -number) as feed:
        for number in range(4):
            assert next(feed) == -number
            deadline = time.monotonic() + 5
            while len(made) < number + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert made == list(range(number + 2))
        assert next(feed) == -4
        with pytest.raises(StopIteration):
            next(feed)
    assert no_feed_is_left()


@pytest.mark.parametrize("steps", ["[5, 3]", "[3, 500001]", "[0, 3]", "[1]"])
def test_steps_to_profile_that_never_come_are_refused_in_one_line(steps, capsys, monkeypatch):
    argv = ["job.train", "--config", "job/presets/demo.yaml", "--train.profile_steps", steps]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "train.profile_steps" in said


def test_a_shipment_lies_on_the_device_with_its_spectrogram(spec):
    data = replace(spec.data, spectrogram_on="device")
    arrays = row_loader(replace(spec, data=data)).load(schedule_of(spec).plan(0).micro_batch(0, 0))
    assert "spec" not in arrays.arrays
    batch = Courier(torch.device("cpu"), data).ship(arrays.arrays).received()
    expected = row_loader(spec).load(batch.rows.numpy()).arrays["spec"]
    assert torch.equal(batch.spec, torch.from_numpy(expected))
