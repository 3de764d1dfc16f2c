"""Failures count from the last progress on, and end in one line."""

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError

from job.on_ray.failures import FailuresInARow, newest_step, told_in_a_line
from job.on_ray.private import (
    ControllerError,
    FailureConfig,
    FailureDecision,
    UserExceptionWithTraceback,
    WorkerGroupError,
)
from trainable.distributed.faults import PermanentError
from trainable.run.format import CHECKSUMS, DRIVER_LOG, checkpoint_name

DIED = WorkerGroupError("rank 0 died", {0: ActorDiedError()})
# as Ray tells it
GONE = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"


def save(run: Path, step: int) -> None:
    folder = run / checkpoint_name(step)
    folder.mkdir(parents=True)
    (folder / CHECKSUMS).write_text("{}")


def test_unrelated_deaths_of_a_long_run_do_not_add_up(tmp_path):
    policy = FailuresInARow(FailureConfig(max_failures=2), lambda: newest_step(str(tmp_path)))
    for step in range(10, 200, 10):
        save(tmp_path, step)
        assert policy.make_decision(DIED) is FailureDecision.RETRY
        assert policy.make_decision(DIED) is FailureDecision.RETRY
    assert policy.make_decision(DIED) is FailureDecision.RAISE


def test_what_was_there_before_is_no_progress(tmp_path):
    save(tmp_path, 10)
    policy = FailuresInARow(FailureConfig(max_failures=1), lambda: newest_step(str(tmp_path)))
    assert policy.make_decision(DIED) is FailureDecision.RETRY
    assert policy.make_decision(DIED) is FailureDecision.RAISE


def test_a_run_that_is_being_stopped_is_not_started_again():
    policy = FailuresInARow(FailureConfig(max_failures=-1), lambda: 0)
    policy.gives_up = True
    assert policy.make_decision(DIED) is FailureDecision.RAISE


def test_an_error_that_no_start_would_cure_is_not_tried_again(tmp_path):
    policy = FailuresInARow(FailureConfig(max_failures=-1), lambda: 0)
    raised = PermanentError("train.x is y: give z")
    error = WorkerGroupError("", {0: ActorDiedError(), 1: UserExceptionWithTraceback(raised, "")})
    assert policy.make_decision(error) is FailureDecision.RAISE
    told = str(told_in_a_line(error, str(tmp_path)))
    assert told.startswith("train.x is y: give z. The run is given up, it has no checkpoint yet; ")


def test_a_store_that_does_not_answer_is_no_progress(monkeypatch):
    def unreachable(folder):
        raise OSError("no route")

    monkeypatch.setattr("job.on_ray.failures.checkpoints", unreachable)
    policy = FailuresInARow(FailureConfig(max_failures=1), lambda: newest_step("s3://bucket/run"))
    assert policy.make_decision(DIED) is FailureDecision.RETRY
    assert policy.make_decision(DIED) is FailureDecision.RAISE


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DIED, "rank 0: The actor died unexpectedly before finishing this task"),
        (
            WorkerGroupError("", {1: RuntimeError(GONE)}),
            "rank 1: its process has died: it was killed, perhaps because memory ran out",
        ),
        (WorkerGroupError("", {3: RuntimeError("a\n\nKeyError: 'x'\n")}), "rank 3: KeyError: 'x'"),
        (ControllerError(RuntimeError("no place")), "no place"),
        (ActorDiedError(), "The actor died unexpectedly"),
    ],
)
def test_a_run_that_gives_up_says_where_it_stands_in_one_line(tmp_path, error, words):
    save(tmp_path, 40)
    told = str(told_in_a_line(error, str(tmp_path)))
    assert words in told
    assert "step 40, and the same command continues" in told
    assert "\n" not in told
    again = str(told_in_a_line(ValueError("the second"), str(tmp_path)))
    assert str(tmp_path / DRIVER_LOG) in again
    log = (tmp_path / DRIVER_LOG).read_text()
    assert type(error).__name__ in log
    assert "ValueError: the second" in log  # beneath the first


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    assert "It has no checkpoint yet" in str(told_in_a_line(DIED, str(tmp_path)))
