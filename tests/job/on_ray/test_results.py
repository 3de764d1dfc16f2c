"""Ray's result of a run is true of its folder at any time, whoever prunes and whenever it ends."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ray.train import Result

import job.on_ray.storage
import trainable.run.storage
from job.on_ray.storage import ray_storage, write_checkpoint_list
from job.on_ray.training import ranking, run_config
from tests.tiny import demo_config, tiny_config, tiny_state
from tests.trainable.run.test_saver import info
from trainable.config import CheckpointConfig
from trainable.run.saver import Saver
from trainable.run.storage import claim, list_checkpoints

KEEP = CheckpointConfig(every_steps=10, keep=1, keep_best=1, retry_s=0.0)
LIST = "checkpoint_manager_snapshot.json"
SCORES = {10: 0.5, 20: 0.25, 30: 0.75, 40: 0.375, 50: 0.625}


@pytest.fixture(scope="module")
def state():
    return tiny_state(tiny_config())


def saver_of(run: str, cfg: CheckpointConfig = KEEP) -> Saver:
    return Saver(run, cfg, claim(run), write_checkpoint_list)


def save(saver: Saver, state, step: int) -> None:
    """Save step `step` of a run whose mel loss is that number."""
    told = replace(info(step, mel=SCORES[step]), metrics={"loss/g/mel": float(step)})
    saver.save(state, told, "train: {}\n").result()


def listed(result: Result) -> list[int]:
    """Steps of the best checkpoints, all of which can be fetched."""
    for checkpoint, metrics in result.best_checkpoints:
        with checkpoint.as_directory() as folder:
            state = json.loads((Path(folder) / "state.json").read_text())
        assert state["position"]["step"] == metrics["step"]
    return [metrics["step"] for _, metrics in result.best_checkpoints]


@pytest.mark.medium
@pytest.mark.parametrize("place", ["disk", "s3"])
def test_what_is_pruned_is_no_longer_listed(state, place, tmp_path, request):
    where = str(tmp_path) if place == "disk" else request.getfixturevalue("bucket")
    run = f"{where}/run"
    saver = saver_of(run)
    for step in (10, 20, 30, 40):
        save(saver, state, step)
        result = Result.from_path(run)
        assert result.metrics["step"] == result.metrics["loss/g/mel"] == step
    assert listed(result) == [20, 40]  # the best one, and the newest
    best = result.get_best_checkpoint("eval/mel", "min")
    assert best.path.endswith("checkpoint_000000020")
    assert list(result.metrics_dataframe["loss/g/mel"]) == [20.0, 40.0]
    assert result.checkpoint.path.endswith("checkpoint_000000040")
    fs, path = ray_storage(run)
    assert listed(Result.from_path(path, storage_filesystem=fs)) == [20, 40]


@pytest.mark.medium
def test_a_process_that_is_killed_while_it_prunes_leaves_a_true_list(state, tmp_path, monkeypatch):
    run = str(tmp_path / "anna [v2] 声")
    saver = saver_of(run)
    save(saver, state, 10)
    save(saver, state, 30)
    assert listed(Result.from_path(run)) == [10, 30]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainable.run.storage, "_remove", killed)
    with pytest.raises(KeyboardInterrupt):
        save(saver, state, 40)
    assert (tmp_path / "anna [v2] 声/checkpoint_000000010").exists()
    assert listed(Result.from_path(run)) == [40]

    # the next start lists what is there, and its first save prunes the rest
    monkeypatch.undo()
    again = saver_of(run)
    again.resumed = 40
    again.list_what_was_found()
    again.finish()
    assert listed(Result.from_path(run)) == [30, 40]
    save(again, state, 50)
    assert listed(Result.from_path(run)) == [40, 50]
    assert not (tmp_path / "anna [v2] 声/checkpoint_000000010").exists()


@pytest.mark.medium
def test_a_start_lists_what_it_finds_and_not_what_it_passes_over(state, tmp_path):
    run = str(tmp_path)
    list_checkpoints(run, write_checkpoint_list)
    assert Result.from_path(run).best_checkpoints == []
    saver = saver_of(run, replace(KEEP, keep=3))
    for step in (10, 20, 30):
        save(saver, state, step)
    # somebody tidies up, and the newest one is damaged
    shutil.rmtree(tmp_path / "checkpoint_000000010")
    list_checkpoints(run, write_checkpoint_list)
    assert listed(Result.from_path(run)) == [20, 30]
    again = saver_of(run)
    again.resumed = 20
    again.list_what_was_found()
    again.finish()
    assert listed(Result.from_path(run)) == [20]

    # a driver that has lost the folder leaves it alone
    saver.list_what_was_found()
    saver.finish()
    assert listed(Result.from_path(run)) == [20]


@pytest.mark.medium
def test_a_disk_too_full_for_the_list_has_none_and_is_pruned(state, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saver = saver_of(str(tmp_path))
    save(saver, state, 20)
    save(saver, state, 30)
    with monkeypatch.context() as patch:
        patch.setattr(job.on_ray.storage, "put_file", full)
        save(saver, state, 40)
    assert "Ray Train's list of checkpoints is written at the next one" in caplog.text
    assert sorted(path.name[-2:] for path in tmp_path.glob("checkpoint_0*")) == ["20", "40"]
    assert not (tmp_path / LIST).exists()


def test_ray_is_told_what_ranks_checkpoints_and_removes_none(tmp_path):
    cfg = replace(demo_config(), run=replace(demo_config().run, storage=str(tmp_path)))
    told = run_config(cfg, []).checkpoint_config
    assert told.num_to_keep is None
    assert (told.checkpoint_score_attribute, told.checkpoint_score_order) == ("eval/mel", "min")
    accuracy = CheckpointConfig(metric="eval/accuracy", larger_is_better=True)
    assert ranking(accuracy).checkpoint_score_order == "max"
    assert ranking(CheckpointConfig(keep_best=0)).checkpoint_score_attribute is None
