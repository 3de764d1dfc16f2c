"""A worker told that a node leaves or the run grows: what it saves, also if the storage fails."""

import errno
import os
from types import SimpleNamespace

import pytest

import trainable.run.storage
from data.files import StorageError
from data.plan.epoch_plan import Position
from tests.tiny import tiny_config, tiny_state
from tests.trainable.worker.fakes import DRAINED, GROWN, FakeWorker, fake_watchdog, worker_config
from trainable.config import CheckpointConfig
from trainable.run.format import read_info
from trainable.run.saver import Saver
from trainable.run.storage import fetched, newest_good
from trainable.worker.preemption import PreemptedError, StoppedError, stop_notice
from trainable.worker.saving import Checkpoints


@pytest.fixture(scope="module")
def state():
    return tiny_state(tiny_config())


@pytest.fixture
def checkpoints(state, tmp_path):
    """Those of a run after three steps, without Ray."""
    state.position = Position(3, 0, 3)
    folder = str(tmp_path / "run")
    return Checkpoints(
        cfg=worker_config(tiny_config(), folder),
        worker=FakeWorker(),
        manifest=SimpleNamespace(digest="manifest", speakers={"anna": 0}),
        history=(),
        state=state,
        saver=Saver(folder, CheckpointConfig(retry_s=0.0)),
        records=SimpleNamespace(
            flush=list, persist=lambda: None, close=lambda: None, told={"loss/g/mel": 1.5}
        ),
        watchdog=fake_watchdog(),
        log_file=tmp_path / "log",
    )


@pytest.fixture
def full_disk(monkeypatch):
    """Within it nothing can be written."""

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(trainable.run.storage.os, "fsync", fails)
        yield patch


@pytest.mark.medium
@pytest.mark.parametrize("notice", [GROWN, DRAINED])
def test_it_saves_once_and_ends(checkpoints, notice):
    checkpoints.save_and_report()
    with pytest.raises(PreemptedError):
        checkpoints.leave(notice)
    assert checkpoints.saver.saved == [3]
    assert [name for name, *_ in checkpoints.worker.reported] == ["checkpoint_000000003"]


def test_a_checkpoint_tells_about_itself(checkpoints):
    checkpoints.save_and_report({"eval/mel": 0.5}, wait=True)
    told = {"step": 3, "epoch": 0, "eval/mel": 0.5, "loss/g/mel": 1.5}
    assert checkpoints.worker.reported == [("checkpoint_000000003", told, True)]
    with fetched(newest_good(checkpoints.cfg.folder)) as folder:
        info = read_info(folder)
    assert (info.position, info.manifest, info.code_version) == (
        Position(3, 0, 3),
        "manifest",
        "code",
    )
    assert info.scores == {"eval/mel": 0.5}
    assert info.told == told
    assert info.versions.keys() == {"python", "torch", "ray"}


def test_what_could_not_be_saved_in_the_background_is_saved_before_it_is_said(
    checkpoints, full_disk
):
    checkpoints.save_and_report()
    checkpoints.saver.wait()
    full_disk.undo()
    checkpoints.save_now()
    assert newest_good(checkpoints.cfg.folder).endswith("3")


def test_one_that_could_not_be_written_is_not_reported_but_the_one_before(checkpoints, monkeypatch):
    checkpoints.save_and_report(wait=True)

    def fails(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trainable.run.storage.os, "fsync", fails)
    checkpoints.state.position = Position(4, 0, 4)
    with pytest.raises(StorageError, match="step 4 could not be saved"):
        checkpoints.save_and_report(wait=True)
    assert [name for name, *_ in checkpoints.worker.reported] == ["checkpoint_000000003"] * 2


def test_a_run_that_cannot_be_saved_does_not_grow_until_it_can(checkpoints, full_disk):
    for _ in range(5):
        checkpoints.leave(GROWN)
    assert checkpoints.saver.failures == 1  # one was tried; three in a row would end the run
    full_disk.undo()
    checkpoints.leave(GROWN)
    checkpoints.save_and_report()  # on schedule
    checkpoints.saver.wait()
    with pytest.raises(PreemptedError):
        checkpoints.leave(GROWN)


def test_a_node_that_goes_is_left_even_if_nothing_could_be_saved(checkpoints, full_disk):
    with pytest.raises(PreemptedError):
        checkpoints.leave(DRAINED)
    assert newest_good(checkpoints.cfg.folder) is None


def test_a_run_that_is_stopped_saves_and_ends_for_good(checkpoints):
    with pytest.raises(StoppedError):
        checkpoints.leave(stop_notice(60))
    with fetched(newest_good(checkpoints.cfg.folder)) as folder:
        assert read_info(folder).position == Position(3, 0, 3)


def test_a_stop_that_cannot_be_saved_is_no_success(checkpoints, full_disk):
    with pytest.raises(StorageError, match="step 3 could not be saved"):
        checkpoints.leave(stop_notice(60))


def test_where_the_run_resumed_from_it_has_nothing_to_save(checkpoints, full_disk):
    checkpoints.saver.resumed = 3
    with pytest.raises(PreemptedError):
        checkpoints.leave(GROWN)
    assert checkpoints.saver.failures == 0
    assert checkpoints.worker.reported == []
