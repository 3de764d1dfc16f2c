"""What is written beside the training is durable, or given up with a line, on failing storage."""

import errno
import json
import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from botocore.retries.standard import ExponentialBackoff
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainable.run.storage
from data.plan.epoch_plan import Position
from tests.flaky import flaky_bucket
from tests.tiny import tiny_config, tiny_state
from tests.trainable.run.test_checkpoint import INFO
from trainable.config import CheckpointConfig
from trainable.learning.report import StepReport
from trainable.run.checkpoint import load_checkpoint
from trainable.run.format import step_of
from trainable.run.metrics_file import read_metrics
from trainable.run.records import RunLog
from trainable.run.saver import FAILURES_IN_A_ROW, Saver
from trainable.run.storage import best, checkpoints, claim, fetched, kept, newest_good, resolve

pytestmark = pytest.mark.medium  # networks are saved, which takes seconds together

NOW = CheckpointConfig(every_steps=10, keep=2, retry_s=0.0)


@pytest.fixture(scope="module")
def state():
    return tiny_state(tiny_config())


FIELDS = {
    "epoch": 0,
    "lr": 1.0,
    "world_size": 1,
    "utterances": 6,
    "padding": 0.1,
    "seconds": 2.0,
    "seconds_waiting": 0.5,
    "peak_gib": 1.0,
}  # of a step's line


def info(step: int, **scores: float):
    return replace(
        INFO,
        position=Position(step, 0, step),
        scores={f"eval/{key}": v for key, v in scores.items()},
    )


def save(saver: Saver, state, step: int, **scores: float) -> None:
    saver.save(state, info(step, **scores), "train: {}\n").result()


def steps(run: object) -> list[int]:
    return sorted(step_of(uri) for uri in checkpoints(str(run)))


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("scores", "cfg", "stay"),
    [
        ({10: 3.0, 20: 1.0, 30: 2.0, 40: 2.5}, CheckpointConfig(10, keep=1), {40, 20}),
        (
            {10: 3.0, 20: 1.0, 30: 2.0, 40: 2.5},
            CheckpointConfig(10, keep=2, keep_best=2),
            {40, 30, 20},
        ),
        # the later one of equals
        ({10: 1.0, 20: 1.0, 30: None}, CheckpointConfig(10, keep=1), {30, 20}),
        ({10: 3.0, 20: 1.0, 30: 2.0}, CheckpointConfig(10, keep=1, keep_best=0), {30}),
        ({10: 3.0, 20: 1.0, 33: None}, CheckpointConfig(10, keep=0, keep_best=0), {10, 20, 33}),
        # drained twice, no validation yet
        ({20: None, 23: None, 27: None}, CheckpointConfig(10, keep=1), {27, 20}),
        ({7: None}, CheckpointConfig(10, keep=1), {7}),
    ],
)
def test_what_is_kept(scores, cfg, stay):
    given = {step: {} if score is None else {cfg.metric: score} for step, score in scores.items()}
    assert kept(given, cfg) == stay


def test_a_run_keeps_its_newest_and_its_best(state, tmp_path):
    saver = Saver(str(tmp_path), NOW)
    # half-written by an earlier start, as older code did
    (tmp_path / "checkpoint_000000005").mkdir()
    (tmp_path / "checkpoint_000000006.part").mkdir()
    for step, mel in ((10, 0.5), (20, 0.25), (30, 0.75), (40, 0.375), (43, None)):
        save(saver, state, step, **({} if mel is None else {"mel": mel}))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"checkpoint_0000000{s}" for s in (20, 40, 43)
    ]
    assert best(str(tmp_path)) == resolve(f"{tmp_path}/best") == f"{tmp_path}/checkpoint_000000020"
    assert resolve(str(tmp_path)) == f"{tmp_path}/checkpoint_000000043"


def test_a_run_without_scores_has_no_best(state, tmp_path):
    save(Saver(str(tmp_path), NOW), state, 10)
    with pytest.raises(ValueError, match=r"keep_best > 0"):
        resolve(f"{tmp_path}/best")


def test_what_a_run_has_passed_over_does_not_outlive_it(state, tmp_path, caplog):
    """A later checkpoint is damaged: the earlier one that the run resumed from must stay."""
    saver = Saver(str(tmp_path), replace(NOW, keep=2))
    save(saver, state, 20)
    save(saver, state, 30, mel=0.25)
    (tmp_path / "checkpoint_000000030/g.safetensors").write_bytes(b"damaged")
    assert newest_good(str(tmp_path)).endswith("20")
    again = Saver(str(tmp_path), replace(NOW, keep=1))
    again.resumed = 20
    save(again, state, 33, mel=0.5)
    assert steps(tmp_path) == [20, 33]
    assert "removes checkpoint_000000030: it is damaged" in caplog.text


def test_the_training_goes_on_while_a_checkpoint_is_written(state, tmp_path, monkeypatch):
    held, write = threading.Event(), trainable.run.saver.write_checkpoint
    monkeypatch.setattr(
        trainable.run.saver, "write_checkpoint", lambda *args: (held.wait(60), write(*args))
    )
    trained = tiny_state(tiny_config())
    saver, before = Saver(str(tmp_path), NOW), trained.digest()
    writing = saver.save(trained, info(10), "")
    with torch.no_grad():
        for p in trained.nets["g"].parameters():
            p.add_(1.0)
    assert not writing.done()
    assert checkpoints(str(tmp_path)) == []
    held.set()
    saver.wait()
    load_checkpoint(tmp_path / "checkpoint_000000010", trained)
    assert trained.digest() == before


def test_a_full_disk_is_tried_again(state, tmp_path, monkeypatch):
    saver, sync, full = Saver(str(tmp_path), replace(NOW, retry_s=20.0)), os.fsync, [1, 1]
    monkeypatch.setattr(
        trainable.run.storage.os, "fsync", lambda f: full_disk() if full and full.pop() else sync(f)
    )
    save(saver, state, 10)
    assert saver.problem(last=True) is None
    assert newest_good(str(tmp_path))


def test_several_failures_in_a_row_or_a_last_one_end_a_run_with_its_state_intact(
    state, tmp_path, monkeypatch, caplog
):
    saver = Saver(str(tmp_path), NOW)
    save(saver, state, 10)
    with monkeypatch.context() as patch:
        patch.setattr(trainable.run.storage.os, "fsync", full_disk)
        for step in range(20, 20 + 10 * FAILURES_IN_A_ROW, 10):
            assert saver.problem(last=False) is None
            save(saver, state, step)
            assert "No space left on device" in saver.problem(last=True)
    assert "newest checkpoint: free up space" in saver.problem(last=False)
    assert f"step 20 could not be saved: [Errno {errno.ENOSPC}]" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_000000010"]
    save(saver, state, 50)  # somebody has made room
    assert saver.problem(last=True) is None


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small tmpfs")
def test_on_a_disk_too_small_for_another_checkpoint_the_one_there_stays(state, tmp_path):
    if os.system(f"mount -t tmpfs -o size=40m none {tmp_path}"):
        pytest.skip("nothing can be mounted here")
    try:
        saver, step = Saver(str(tmp_path), replace(NOW, keep=100)), 0
        while saver.problem(last=True) is None:
            step += 10
            save(saver, state, step)
        assert step > 10
        assert steps(tmp_path) == list(range(10, step, 10))
        assert newest_good(str(tmp_path)).endswith(f"{step - 10}")
    finally:
        os.system(f"umount {tmp_path}")


def test_without_its_records_a_step_is_not_saved(state, tmp_path):
    """Metrics before a checkpoint are never missing: a resume does not write them again."""
    saver = Saver(str(tmp_path), NOW)
    saver.save(state, info(10), "", first=full_disk).result()
    assert checkpoints(str(tmp_path)) == []
    assert "No space" in saver.problem(last=True)


def test_records_that_a_full_disk_refuses_come_later_and_whole(tmp_path, monkeypatch):
    log = RunLog(str(tmp_path), 0, writes=True)

    def step(number: int) -> None:
        report = StepReport(
            {"loss/g/mel": torch.tensor(number / 8)},
            present=torch.tensor([True]),
            consumed=torch.zeros(1).double(),
            broken=torch.tensor([False]),
        )
        log.add(report, step=number, **FIELDS)
        log.scalars(log.flush()[-1])

    class Full:
        """Takes half of what is written."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            return self.file.write(content[: len(content) // 2]) or full_disk()

    step(1)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    refused = []

    def submit(write):  # as the saver: a failure is no end
        with pytest.raises(OSError) as raised:
            write()
        refused.append(raised.value.errno)

    log.submit = submit
    with monkeypatch.context() as patch:
        opened = Path.open
        patch.setattr(
            Path, "open", lambda self, *args, **kwargs: Full(opened(self, *args, **kwargs))
        )
        step(2)
    assert refused == [errno.ENOSPC] * 2
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    log.submit = lambda write: write()
    step(3)
    log.close()
    assert [line["step"] for line in read_metrics(str(tmp_path))] == [1, 2, 3]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss/g/mel")] == [
        (n, n / 8) for n in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def store():
    quicker = pytest.MonkeyPatch()  # botocore's pauses are of seconds
    quicker.setattr(
        ExponentialBackoff, "delay_amount", lambda self, context: 0.01 * 2**context.attempt_number
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with flaky_bucket() as (flaky, _):
        flaky.share = 1 / 3
        yield flaky
    quicker.undo()


@pytest.mark.medium
def test_a_store_that_answers_503_to_a_third_holds_everything(state, store, tmp_path):
    run = "s3://bucket/run"
    saver = Saver(run, CheckpointConfig(every_steps=10, keep=1, keep_best=1))
    log = RunLog(run, 0, writes=True, submit=saver.submit)
    for number, mel in ((10, 0.25), (20, 0.5), (30, 0.75)):
        report = StepReport(
            {"loss/g/mel": torch.tensor(1.0)},
            present=torch.tensor([True]),
            consumed=torch.zeros(1).double(),
            broken=torch.tensor([False]),
        )
        log.add(report, step=number, **FIELDS)
        log.scalars(log.flush()[-1])
        saver.save(state, info(number, mel=mel), "train: {}\n", log.persist)
    log.close()
    saver.close()
    assert saver.problem(last=True) is None
    assert steps(run) == [10, 30]
    assert [line["step"] for line in read_metrics(run)] == [10, 20, 30]
    with fetched(resolve(f"{run}/best")) as folder:
        assert json.loads((folder / "state.json").read_text())["scores"] == {"eval/mel": 0.25}
        assert load_checkpoint(folder, tiny_state(tiny_config())).position.step == 10
    fsspec.filesystem("s3").get("bucket/run/tensorboard", str(tmp_path), recursive=True)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("loss/g/mel")] == [10, 20, 30]
    assert store.failed > 10


def test_a_store_that_is_gone_ends_in_one_line(state, store, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setattr(store, "share", 1.0)
    saver = Saver("s3://bucket/gone", NOW)
    save(saver, state, 10)
    assert "s3://bucket/gone/checkpoint_000000010 cannot be reached" in saver.problem(last=True)


def test_of_two_jobs_the_one_started_later_writes_the_folder(state, tmp_path):
    run = str(tmp_path / "run")
    first = Saver(run, NOW, claim(run))
    save(first, state, 10)
    second = Saver(run, NOW, claim(run))
    second.resumed = 10
    save(second, state, 11)
    save(first, state, 20)
    assert steps(run) == [10, 11]
    assert second.problem(last=True) is None
    assert first.failures == 0
    problem = first.problem(last=False)
    assert problem is not None
    assert problem.startswith(f"another job trains the run {run} (on ")
    assert "free up space" not in problem
