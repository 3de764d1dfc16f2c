"""A worker told that a node goes or that the run grows: what it saves, and what it does where the storage fails."""

import errno
import os
from types import SimpleNamespace

import pytest
import ray.train
from ray.train import CheckpointUploadMode, PreemptionInfo

import trainable.run.storage
from data.plan.epoch_plan import Position
from tests.tiny import tiny_config, tiny_state
from trainable.config import CheckpointConfig
from trainable.run.saver import Saver
from trainable.run.storage import newest_good
from trainable.worker.loop import Worker
from trainable.worker.preemption import PreemptedError

GROWN = PreemptionInfo(deadline_ms=0, preempted_node_to_ranks={})
DRAINED = PreemptionInfo(deadline_ms=0, preempted_node_to_ranks={"node": [1]})


@pytest.fixture(scope="module")
def state():
    return tiny_state(tiny_config())


@pytest.fixture
def worker(state, tmp_path, monkeypatch):
    """A worker without Ray, after three steps."""
    folder = str(tmp_path / "run")
    own = object.__new__(Worker)
    own.cfg = SimpleNamespace(folder=folder, code_version="code", config_yaml="train: {}\n")
    own.rank, own.world_size, own.logs = 0, 1, tmp_path / "log"
    own.saver = Saver(folder, CheckpointConfig(retry_s=0.0))
    own.state, own.spec = state, SimpleNamespace(changes=())
    own.manifest = SimpleNamespace(digest="manifest", speakers={"anna": 0})
    own.records = SimpleNamespace(flush=list, persist=lambda: None, close=lambda: None)
    own.watchdog = SimpleNamespace(alive=lambda step, long: None)
    own.checkpoint = lambda name: name
    state.position = Position(3, 0, 3)

    def report(
        metrics, checkpoint, checkpoint_dir_name, checkpoint_upload_mode, checkpoint_upload_fn, **_
    ):
        if checkpoint_upload_mode is CheckpointUploadMode.SYNC:
            checkpoint_upload_fn(checkpoint, checkpoint_dir_name)

    monkeypatch.setattr(ray.train, "report", report)
    return own


@pytest.fixture
def full_disk(monkeypatch):
    """Within it nothing can be written."""

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(trainable.run.storage.os, "fsync", fails)
        yield patch


@pytest.mark.parametrize("notice", [GROWN, DRAINED])
def test_it_saves_once_and_ends(worker, notice):
    worker.save()
    with pytest.raises(PreemptedError):
        worker.leave(notice)
    assert worker.saver.saved == [3]


def test_what_could_not_be_saved_in_the_background_is_saved_before_it_is_said(worker, full_disk):
    worker.save()
    worker.saver.wait()
    full_disk.undo()
    worker.save_now()
    assert newest_good(worker.cfg.folder).endswith("3")


def test_a_run_that_cannot_be_saved_does_not_grow_until_it_can(worker, full_disk):
    for _ in range(5):
        worker.leave(GROWN)
    assert worker.saver.failures == 1  # one was tried; three in a row would end the run
    full_disk.undo()
    worker.leave(GROWN)
    worker.save()  # on schedule
    worker.saver.wait()
    with pytest.raises(PreemptedError):
        worker.leave(GROWN)


def test_a_node_that_goes_is_left_even_if_nothing_could_be_saved(worker, full_disk):
    with pytest.raises(PreemptedError):
        worker.leave(DRAINED)
    assert newest_good(worker.cfg.folder) is None


def test_where_the_run_went_on_from_it_has_nothing_to_save(worker, full_disk):
    worker.saver.resumed = 3
    with pytest.raises(PreemptedError):
        worker.leave(GROWN)
    assert worker.saver.failures == 0
