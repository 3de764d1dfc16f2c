"""The loop: what follows what, with parts in place of networks, data and Ray."""

import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.plan.epoch_plan import Position
from data.stream.collate import Extent
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.worker.fakes import (
    DRAINED,
    GROWN,
    FakeStream,
    FakeWorker,
    fake_watchdog,
    schedule,
    worker_config,
)
from trainable.config import CheckpointConfig, NotFiniteConfig
from trainable.learning.judgement import Validation
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.report import StepReport
from trainable.learning.step import TrainingStep
from trainable.run.format import read_info
from trainable.run.metrics_file import read_metrics
from trainable.run.records import RunLog
from trainable.run.saver import Saver
from trainable.worker.loop import TrainingLoop
from trainable.worker.ray_worker import Pace
from trainable.worker.saving import Checkpoints

TAGS = ("loss/g/mel", "loss/g/kl", "loss/g/total", "loss/d/total")
UTTERANCES = 8  # 4 steps per epoch
NAMES = np.array([str(n) for n in range(UTTERANCES)], object)


class Left(Exception):  # noqa: N818
    """In place of PreemptedError."""


class FakeBatch:
    """A batch that is only looked at for its lengths."""

    extent = Extent(frames=40, tokens=1, own_frames=70)
    computed_frames = 80

    def __init__(self, number: int):
        self.number = number


class FakeCheckpoints:
    """Notes what is asked of it."""

    def __init__(self, events: list):
        self.events = events
        self.saver = SimpleNamespace(finish=lambda: events.append("finish"))

    def save_and_report(self, scores=None, wait=False):
        self.events.append(("save", dict(scores or {}), wait))

    def leave(self, notice):
        self.events.append(("leave", notice))
        if notice is DRAINED:
            raise Left


class FakeStep:
    """Takes steps that do nothing; the losses of a bad one are NaN."""

    def __init__(self, events: list, bad: int | None = None):
        self.events = events
        self.bad = bad
        self.at = None

    def __call__(self, batches, want_images):
        number = batches[0][1].number
        self.events.append(("step", number, want_images))
        loss = math.nan if number == self.bad else float(number)
        scalars = {tag: torch.tensor(loss) for tag in TAGS}
        present = torch.ones(len(scalars), dtype=torch.bool)
        broken = torch.tensor([number == self.bad])
        return StepReport(scalars, present, torch.zeros(1).double(), broken)


class Run:
    """A run's parts, and in `events` what was done with them."""

    def __init__(
        self,
        folder: Path,
        notices=None,
        position: Position | None = None,
        keep_best: int = 0,
        stop_after: int = 0,
        bad: int | None = None,
        **train,
    ):
        self.events: list = []
        self.scores = iter([])
        self.streams: list[FakeStream] = []
        self.state = SimpleNamespace(
            position=position or Position(),
            validations=(),
            passed_over=(),
            learning_rate=lambda name: 1e-3,
            digest=lambda: "f" * 64,
        )
        cfg = tiny_config(
            checkpoint=CheckpointConfig(every_steps=3, keep_best=keep_best),
            **{"max_steps": 6, "log_every_steps": 2, "image_every_steps": 4} | train,
        )
        cfg = replace(cfg, eval=replace(cfg.eval, every_steps=4, stop_after=stop_after))
        self.loop = TrainingLoop(
            cfg=worker_config(cfg, str(folder)),
            worker=FakeWorker(notices),
            names=NAMES,
            schedule=schedule(UTTERANCES),
            open_stream=self.open_stream,
            state=self.state,
            train_step=FakeStep(self.events, bad),
            records=RunLog(str(folder), self.state.position.step, writes=True),
            validator=SimpleNamespace(validate=self.validate),
            checkpoints=FakeCheckpoints(self.events),
            watchdog=fake_watchdog(),
        )

    def open_stream(self, first: Position) -> FakeStream:
        self.events.append(("stream", first.step))
        stream = FakeStream(first, self.loop.cfg.train.max_steps, FakeBatch)
        self.streams.append(stream)
        return stream

    def validate(self, step: int, records: RunLog) -> dict[str, float]:
        assert not records.pending  # what was done before was looked at
        self.events.append(("validate", step))
        score = next(self.scores, 1.0)
        self.state.validations += (Validation(step, score, score, score, "eval/mel"),)
        return {"eval/mel": score}

    def steps(self) -> list[int]:
        return [event[1] for event in self.events if event[0] == "step"]


def test_what_follows_what(tmp_path, caplog):
    run = Run(tmp_path)
    with caplog.at_level(logging.DEBUG, "bert_vits2_ray"):
        run.loop.train_to_end()
    assert run.events == [
        ("stream", 0),
        ("step", 1, True),
        ("step", 2, False),
        ("step", 3, False),
        ("save", {}, False),
        ("step", 4, True),
        ("validate", 4),
        ("step", 5, False),
        ("step", 6, False),
        ("validate", 6),
        ("save", {"eval/mel": 1.0}, True),
    ]
    assert run.state.position == Position(6, 1, 2)
    assert not run.streams[0].stopped  # it has ended
    lines = read_metrics(str(tmp_path))
    assert [(line["step"], line["epoch"], line["utterances"]) for line in lines] == [
        (n, (n - 1) // 4, 2) for n in range(1, 7)
    ]
    assert lines[0]["padding"] == pytest.approx(1 - 70 / 80)
    logged = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert [line.split(":")[0].split(" |")[0] for line in logged] == [
        "epoch 0",
        "step 1/6 epoch 0",
        "step 2/6 epoch 0",
        "step 4/6 epoch 0",
        "epoch 1",
        "step 6/6 epoch 1",
        "step 6 of 6",
    ]
    opened, digest = (r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG)
    assert opened.startswith("data are open after 0.")
    assert digest == f"step 6 of 6: done; parameters {'f' * 64}"


def test_a_checkpoint_is_saved_at_each_validation_for_the_best_to_be_kept(tmp_path):
    run = Run(tmp_path, keep_best=1)
    run.loop.train_to_end()
    at = run.events.index(("validate", 4))
    assert run.events[at + 1] == ("save", {"eval/mel": 1.0}, False)


def test_a_node_that_leaves_is_left_before_a_validation_which_is_made_up_for(tmp_path):
    run = Run(tmp_path, {4: DRAINED})
    with pytest.raises(Left):
        run.loop.train_to_end()
    assert run.events[-2:] == [("step", 4, True), ("leave", DRAINED)]
    again = Run(tmp_path, position=run.state.position)
    again.loop.train_to_end()
    assert again.events[:3] == [("validate", 4), ("stream", 4), ("step", 5, False)]


def test_a_run_that_cannot_be_saved_continues_instead_of_growing(tmp_path):
    run = Run(tmp_path, {2: GROWN, 3: GROWN})
    run.loop.train_to_end()
    assert run.events.count(("leave", GROWN)) == 2
    assert run.steps() == [1, 2, 3, 4, 5, 6]


def test_nobody_asks_for_a_notice_at_the_last_step(tmp_path):
    run = Run(tmp_path)
    run.loop.train_to_end()
    assert run.loop.worker.questions == 5


def test_questions_are_seconds_apart(tmp_path):
    run = Run(tmp_path)
    run.loop.cfg = replace(run.loop.cfg, notice_poll_s=3600.0)
    run.loop.train_to_end()
    assert run.loop.worker.questions == 1


def test_early_stopping_saves_and_stops_the_stream(tmp_path):
    run = Run(tmp_path, max_steps=100, stop_after=2)
    run.scores = iter([2.0, 1.0, 3.0, 3.0])
    run.loop.train_to_end()
    assert run.events[-2:] == [("validate", 16), ("save", {"eval/mel": 3.0}, True)]
    assert run.streams[0].stopped
    again = Run(tmp_path, position=run.state.position, max_steps=100, stop_after=2)
    again.state.validations = run.state.validations
    again.loop.train_to_end()
    assert again.events == []


def test_a_finished_run_does_nothing(tmp_path):
    run = Run(tmp_path, position=Position(6, 1, 2))
    run.loop.train_to_end()
    assert run.events == []


def test_numbers_that_blow_up_end_the_run_under_the_policy_stop(tmp_path):
    run = Run(tmp_path, log_every_steps=1, bad=2)
    with pytest.raises(NotFiniteError, match=r"step 2: .*micro-batch 0 holds \d, \d"):
        run.loop.train_to_end()
    assert run.steps() == [1, 2]


BAD = 4  # the step whose audio is no numbers


def real_loop(folder: Path, max_steps: int) -> TrainingLoop:
    """A loop over tiny networks that saves itself every other step, and rolls back."""
    cfg = tiny_config(
        micro_batches_per_step=1,
        max_steps=max_steps,
        log_every_steps=100,
        reduction="exact",
        not_finite=NotFiniteConfig("roll_back"),
        checkpoint=CheckpointConfig(every_steps=2, keep=9, retry_s=0.0),
    )
    cfg = replace(cfg, eval=replace(cfg.eval, every_steps=1000))

    def batch(number: int):
        made = tiny_batch(cfg, number)
        return replace(made, y=made.y * math.nan) if number == BAD else made

    state = tiny_state(cfg)
    saver = Saver(str(folder), cfg.train.checkpoint)
    config = worker_config(cfg, str(folder))
    records = RunLog(
        str(folder), 0, True, cfg.train.not_finite, passed_over=(), submit=saver.submit
    )
    worker = FakeWorker()
    manifest = SimpleNamespace(digest="digest", speakers={"anna": 0})
    watchdog = fake_watchdog()
    return TrainingLoop(
        cfg=config,
        worker=worker,
        names=NAMES,
        schedule=schedule(UTTERANCES),
        open_stream=lambda first: FakeStream(first, max_steps, batch),
        state=state,
        train_step=TrainingStep(state, cfg.train, cfg.data),
        records=records,
        validator=SimpleNamespace(validate=lambda step, records: {}),
        checkpoints=Checkpoints(
            config, worker, manifest, (), state, saver, records, watchdog, folder / "log"
        ),
        watchdog=watchdog,
    )


@pytest.mark.medium
def test_a_roll_back_continues_behind_the_bad_step(tmp_path, caplog):
    loop = real_loop(tmp_path / "run", max_steps=6)
    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        loop.train_to_end()
    loop.checkpoints.close()
    assert "skips steps 3 to 4 (4 utterances), continues at step 5" in caplog.text
    assert loop.state.position == Position(6, 1, 2)
    saved = [name for name, *_ in loop.worker.reported]
    assert saved == [f"checkpoint_{n:09d}" for n in (2, 4, 6)]
    assert read_info(tmp_path / "run" / saved[-1]).passed_over == ((3, 4),)
    lines = read_metrics(str(tmp_path / "run"))
    assert [(line["step"], line.get("rolled_back", False)) for line in lines] == [
        (n, n in (3, 4)) for n in range(1, 7)
    ]
    assert all(p.isfinite().all() for net in loop.state.nets.values() for p in net.parameters())


def test_each_line_of_the_log_and_each_score_is_reported(tmp_path):
    run = Run(tmp_path)
    run.loop.train_to_end()
    told = run.loop.worker.told
    # a line at 1 and at every second step; at 4 a validation too, without a checkpoint
    assert [(each["step"], "eval/mel" in each) for each in told] == [
        (1, False),
        (2, False),
        (4, False),
        (4, True),
        (6, False),
    ]
    for each in told:
        assert each["loss/g/mel"] == each["step"]
        assert each.keys() >= {"seconds", "learning_rate", "share/waiting_for_data", "workers"}


def test_reports_that_nobody_fetches_are_left_out_and_come_again(monkeypatch):
    clock = iter([0.0] * 7 + [0.5, 0.5, 10.0, *[10.0] * 9])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    pace = Pace(seconds=0.5)
    assert [pace.allows_one_more() for _ in range(6)] == [True] * 4 + [False] * 2
    assert [pace.allows_one_more() for _ in range(2)] == [True, False]  # one look later
    assert sum(pace.allows_one_more() for _ in range(9)) == 4


def test_numbers_that_are_none_are_not_told(tmp_path):
    log = RunLog(str(tmp_path), 0, writes=False)
    assert log.told == {}
    report = StepReport(
        {"loss/g/mel": torch.tensor(2.0), "grad_norm_g": torch.tensor(math.inf)},
        torch.tensor([True]),
        torch.zeros(1).double(),
        torch.tensor([False]),
    )
    fields = {"epoch": 0, "lr": 0.1, "world_size": 2, "utterances": 8, "padding": 0.0}
    log.add(report, step=3, seconds=2.0, seconds_waiting=0.5, peak_gib=1.0, **fields)
    log.loss_scaling = log.policy.loss_scaling = True  # under which a norm may overflow
    log.flush()
    assert log.told["loss/g/mel"] == 2.0
    assert log.told["rate/utterances_per_s"] == 4.0
    assert log.told["share/waiting_for_data"] == 0.25
    assert "grad_norm_g" not in log.told
