"""MLflow on a folder and W&B offline are told what a run reports, and hold nothing up."""

import json
import threading
import time
from dataclasses import replace

import pytest

from job.on_ray.watching.trackers import Mlflow, Tracker, Wandb, trackers
from job.settings.checks import check_trackers
from job.settings.config import Config
from tests.tiny import demo_config

TOLD = {"step": 10, "epoch": 0, "loss/g/mel": 0.5, "learning_rate": 1e-4}


@pytest.fixture
def cfg(tmp_path) -> Config:
    run = replace(demo_config().run, name="anna", storage=str(tmp_path / "runs"))
    return replace(demo_config(), run=run)


def tell(tracker: Tracker, *steps: int) -> None:
    """As a run's controller does, from its start to its end."""
    tracker.begun()
    for step in steps:
        tracker.reported(TOLD | {"step": step, "loss/g/mel": 1 / step}, "")
    tracker.ended()


@pytest.mark.processes
def test_mlflow_has_one_run_with_all_steps_and_the_configuration(cfg, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    tell(Mlflow(cfg), 10, 20)
    tell(Mlflow(cfg), 30)  # the same command again: the same run
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("bert-vits2")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss/g/mel")
    assert [(each.step, each.value) for each in history] == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    assert run.info.run_name == "anna"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.learning_rate"] == str(cfg.train.learning_rate)


@pytest.mark.slow
@pytest.mark.processes
def test_wandb_writes_offline(cfg, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell(Wandb(cfg), 10, 20)
    (folder,) = (tmp_path / "runs/anna/wandb").glob("offline-run-*")
    written = next(folder.glob("*.wandb")).read_bytes()
    assert b"loss/g/mel" in written
    assert b"max_steps" in written
    assert (tmp_path / "runs/anna/trackers/wandb.txt").read_text() in folder.name


class Unreachable(Tracker):
    tracker = "nobody"

    def connect(self):
        raise ConnectionError("nobody answers")


class Hangs(Tracker):
    tracker = "slow"

    def connect(self):
        threading.Event().wait(60)


def test_a_server_that_is_gone_is_said_once_and_ends_nothing(cfg, capsys):
    tell(Unreachable(cfg), 10, 20, 30)
    assert capsys.readouterr().out.splitlines() == [
        "nobody does not take reports, the run continues: nobody answers",
        "nobody has missed 3 reports of the run anna",
    ]


def test_a_server_that_hangs_holds_nothing_up(cfg, capsys, monkeypatch):
    monkeypatch.setattr("job.on_ray.watching.trackers.WAITING", 3)
    monkeypatch.setattr("job.on_ray.watching.trackers.END_WITHIN_S", 0.1)
    began = time.monotonic()
    tell(Hangs(cfg), *range(1, 10))
    assert time.monotonic() - began < 5
    assert "slow has missed" in capsys.readouterr().out


def test_they_are_chosen_and_checked_by_the_configuration(cfg, monkeypatch):
    both = replace(cfg, run=replace(cfg.run, trackers=("mlflow", "wandb")))
    assert [type(each) for each in trackers(both)] == [Mlflow, Wandb]
    assert trackers(cfg) == []
    twice = replace(cfg, run=replace(cfg.run, trackers=("wandb", "wandb")))
    with pytest.raises(ValueError, match="has one twice"):
        check_trackers(twice)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"has mlflow, which is not installed: pip install '\.\[m"):
        check_trackers(both)


def test_secrets_go_to_the_controller_and_not_to_the_tracker(cfg, monkeypatch):
    """Those of its environment variables are never written."""
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    tracker = Wandb(cfg)
    assert tracker.environment["WANDB_API_KEY"] == "very-secret"
    assert "very-secret" not in json.dumps(tracker.config) + repr(tracker)
