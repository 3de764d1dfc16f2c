"""What a worker returns to Ray Train, and what it has saved and uploaded by then."""

import logging
import tempfile
from types import SimpleNamespace

import fsspec
import pytest

from data.files import StorageError
from data.plan.epoch_plan import Position
from data.stream.damage import BadRowsError
from tests.trainable.worker.fakes import FakeWorker, fake_watchdog
from trainable.config import CheckpointConfig
from trainable.learning.not_finite import NotFiniteError
from trainable.run.heartbeat import read_status
from trainable.run.logs import log, start_logging
from trainable.run.saver import Saver
from trainable.run.storage import claim
from trainable.worker import train
from trainable.worker.preemption import StoppedError
from trainable.worker.saving import Checkpoints
from trainable.worker.train import run_to_end, train_loop

ERRORS = [NotFiniteError("it blew up", 3), StorageError("it is full"), BadRowsError("torn")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("handlers", "propagate"):
        monkeypatch.setattr(log, name, getattr(log, name))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield f"memory://{tmp_path.name}/run"
    for handler in log.handlers:
        handler.close()
    log.setLevel(logging.NOTSET)


@pytest.fixture
def checkpoints(folder):
    """Those of a run at step 7, with this step's checkpoint."""
    saver = Saver(folder, CheckpointConfig())
    saver.resumed = 7
    return Checkpoints(
        cfg=SimpleNamespace(folder=folder),
        worker=FakeWorker(),
        manifest=None,
        history=(),
        state=SimpleNamespace(position=Position(7)),
        saver=saver,
        records=None,
        watchdog=fake_watchdog(),
        log_file=start_logging(folder, 0),
    )


def stored(folder: str) -> str:
    return fsspec.filesystem("memory").cat_file(f"{folder}/logs/rank-0.log").decode()


def loop_that(checkpoints, error: Exception | None = None):
    def train_to_end():
        if error is not None:
            raise error

    state = SimpleNamespace(position=Position(8))
    return SimpleNamespace(train_to_end=train_to_end, checkpoints=checkpoints, state=state)


@pytest.mark.parametrize("error", ERRORS)
def test_the_store_has_the_error_that_a_run_ends_with(folder, checkpoints, error):
    assert run_to_end(loop_that(checkpoints, error)) == {"error": str(error)}
    assert stored(folder).endswith(f"{error}\n")


def test_where_a_run_stands_at_its_end(folder, checkpoints):
    assert run_to_end(loop_that(checkpoints)) == {"step": 8}
    assert "pid" in stored(folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_is_told_in_the_folder_as_the_driver_may_be_gone(folder, checkpoints, rank):
    loop = loop_that(checkpoints, StoppedError())
    loop.worker = SimpleNamespace(rank=rank)
    loop.cfg = SimpleNamespace(folder=folder, owner=claim(folder))
    assert run_to_end(loop) == {"step": 8, "stopped": True}
    told = read_status(folder)
    assert (told and (told.state, told.step)) == (("stopped", 8) if rank == 0 else None)


def test_other_errors_are_raised_for_another_attempt_and_the_log_is_uploaded(folder, checkpoints):
    with pytest.raises(RuntimeError, match="a peer is gone"):
        run_to_end(loop_that(checkpoints, RuntimeError("a peer is gone")))
    assert "pid" in stored(folder)


def test_the_state_before_damaged_rows_is_saved(checkpoints):
    saved = []
    checkpoints.save_now = lambda: saved.append(7)
    run_to_end(loop_that(checkpoints, BadRowsError("torn")))
    assert saved == [7]


@pytest.mark.parametrize("error", [ValueError("does not fit"), StorageError("it is full")])
def test_what_cannot_be_set_up_is_no_reason_for_another_attempt(monkeypatch, error):
    def set_up(cfg, worker, write_list):
        raise error

    monkeypatch.setattr(train, "RayWorker", FakeWorker)
    monkeypatch.setattr(train, "set_up", set_up)
    assert train_loop(None) == {"error": str(error)}
