"""Where a trial goes on, and what Tune is told of it."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from job.settings.config import Config
from job.settings.config import RunSettings as Run
from tuning.trial import Place, Reports, TrialConfig, adopt

VALUES = {"train.loss_weights.mel": 45.0}


@pytest.fixture
def trial(tmp_path) -> TrialConfig:
    cfg = Config(run=Run("all", str(tmp_path)))
    return TrialConfig(replace(cfg, train=replace(cfg.train, max_steps=2500)), "eval/mel")


def test_a_trial_is_the_configuration_with_its_values(trial):
    cfg = trial.run("one", VALUES | {"train.loss_weights.kl": 0.5}, max_steps=7)
    assert (cfg.run.name, cfg.run.storage) == ("one", trial.cfg.run.storage)
    assert (cfg.train.loss_weights.mel, cfg.train.loss_weights.kl, cfg.train.max_steps) == (
        45.0,
        0.5,
        7,
    )


def test_a_trial_does_not_give_up_by_itself(trial):
    """What came after it would be told as the worst score there is, at steps that never were."""
    patient = replace(trial, cfg=replace(trial.cfg, eval=replace(trial.cfg.eval, stop_after=2)))
    assert patient.run("one", VALUES).eval == replace(patient.cfg.eval, stop_after=0)
    assert patient.run("one", VALUES, max_steps=1000).eval.stop_after == 0


def test_validations_are_counted_and_a_score_that_is_no_number_is_the_worst(trial):
    assert trial.validations == 3  # after 1000, 2000 and 2500 steps
    told = trial.told("one", 2000, {"eval/mel": 1.5, "eval/kl": 2.0})
    assert told == {"eval/mel": 1.5, "eval/kl": 2.0, "run": "one", "step": 2000, "validation": 2}
    assert trial.told("one", 2500, {"eval/kl": 2.0})["eval/mel"] == math.inf


def test_only_reports_of_validations_are_passed_on():
    class Told(list):
        put = list.append

    reports = Reports(Told())
    reports.after_report(None, [{"step": 3, "loss/g/mel": 2.0}], None)
    validated = {"step": 4, "loss/g/mel": 1.5, "eval/mel": 1.0}
    reports.after_report(None, [validated] * 2, None)
    assert reports.queue == [(4, validated)]


def test_a_place_goes_on_in_its_own_run_and_as_another_trial_or_with_other_values_in_a_new_one():
    place = Place("a", VALUES, "a", 40)
    told = Place(**json.loads(json.dumps(asdict(place))))
    assert told.goes_on_as("a", VALUES) == place
    moved = {
        told.goes_on_as("b", VALUES).run,
        told.goes_on_as("a", {"x": 1.0}).run,
        told.goes_on_as("b", {}).run,
    }
    assert len(moved) == 3
    assert told.goes_on_as("b", VALUES) == told.goes_on_as("b", VALUES)
    assert told.goes_on_as("b", VALUES).step == 40


def test_a_run_begins_with_a_copy_of_the_other_ones_checkpoint(trial):
    source, target = trial.run("a", VALUES), trial.run("b", VALUES)
    theirs = Path(trial.cfg.run.storage, "a", "checkpoint_000000040")
    theirs.mkdir(parents=True)
    for name in ("g.safetensors", "checksums.json"):
        (theirs / name).write_bytes(name.encode())
    adopt(source, target, 40)
    ours = Path(trial.cfg.run.storage, "b", theirs.name)
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == {
        path.name: path.read_bytes() for path in theirs.iterdir()
    }
