"""What takes little on a Ray, on the same one: starting one takes longer than any of it."""

import json
import os
from pathlib import Path

import psutil
import ray.train
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from job import doctor
from job.on_ray.process_group import GLOO_INTERFACE, ProcessGroupConfig
from tests.job.conftest import DEMO, overrides
from tests.tuning.test_search import BEST_MEL, BEST_SCORE, RANGE, VALIDATIONS, objective
from tuning.capacity import HEAD
from tuning.search import SearchOptions, param_space, tune_config


def test_the_doctor_finds_a_ray_fit(ray_local, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = {
        "run__storage": tmp_path,
        "data__shards": tmp_path / "none",
        "scaling__num_workers": 1,
    }
    # no shards yet: job.train makes them
    assert doctor.main(["--config", str(DEMO), *overrides(**options)]) == 0
    told = capsys.readouterr().out
    checks = (
        "configuration",
        "shards",
        "packages",
        "GPU",
        "storage",
        "clock",
        "disk",
        "memory",
        "CPUs for data",
        "ports",
    )
    assert all(f"\n{name} " in told for name in checks)
    assert "1 nodes reach each other" in told
    assert told.endswith("fit\n")


def says_where(config: dict) -> None:
    ray.train.report({})
    if ray.train.get_context().get_world_rank() == 1:
        Path(config["to"]).write_text(
            json.dumps([os.environ[GLOO_INTERFACE], ray.util.get_node_ip_address()])
        )


def test_workers_choose_before_the_group_is_made(ray_local, tmp_path):
    TorchTrainer(
        says_where,
        train_loop_config={"to": str(tmp_path / "said")},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        torch_config=ProcessGroupConfig("gloo"),
        run_config=RunConfig(name="group", storage_path=str(tmp_path)),
    ).fit()
    interface, address = json.loads((tmp_path / "said").read_text())
    assert address in (each.address for each in psutil.net_if_addrs()[interface])


def test_the_first_trial_has_the_values_that_it_is_told(ray_local, tmp_path):
    options = SearchOptions("random", "none", trials=2)
    tuner = tune.Tuner(
        tune.with_resources(objective, {HEAD: 0.1}),
        param_space=param_space(RANGE, options),
        tune_config=tune_config(
            RANGE, options, "score", VALIDATIONS, {"mel": BEST_MEL, "kind": "good"}
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    assert tuner.fit()[0].metrics["score"] == BEST_SCORE
