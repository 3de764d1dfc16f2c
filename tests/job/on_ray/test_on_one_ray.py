"""What takes little on a Ray, on the same one: starting one takes longer than any of it."""

import json
import os
from pathlib import Path

import psutil
import pytest
import ray.train
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from torch.distributed import distributed_c10d

from job import doctor, train
from job.on_ray.failures import permanent_error
from job.on_ray.process_group import GLOO_INTERFACE, ProcessGroupConfig
from tests.job.conftest import DEMO, overrides
from tests.tuning.test_search import BEST_MEL, BEST_SCORE, RANGE, VALIDATIONS, objective
from trainable.config import TrainConfig
from tuning.capacity import HEAD
from tuning.options import SearchOptions
from tuning.search import param_space, tune_config

GPUS = 1  # of Ray; torch sees none
BLIND = "torch sees none"


def test_the_doctor_finds_a_ray_fit(ray_local, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = {
        "scaling__device": "cpu",
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
    assert told.endswith("\nfit\n")

    # each worker would take the GPU
    options["scaling__device"] = "auto"
    assert doctor.main(["--config", str(DEMO), *overrides(**options)]) == 1
    told = capsys.readouterr().out
    assert "torch cannot use those of" in told
    assert f"\nGPU: {BLIND}" in told
    assert told.endswith("\nnot fit: GPU\n")


def test_training_refuses_a_gpu_that_torch_does_not_see(ray_local, tmp_path):
    folders = {"run__storage": tmp_path / "runs", "data__shards": tmp_path / "shards"}
    with pytest.raises(ValueError, match=f"Ray has GPUs on .*, but {BLIND}.*scaling.device cpu"):
        train.main(["--config", str(DEMO), *overrides(**folders)])
    assert not list(tmp_path.iterdir())


def test_workers_refuse_it_too_once(ray_local, tmp_path):
    """As those of a node that came after the driver had looked."""
    with pytest.raises(TrainingFailedError) as raised:
        TorchTrainer(
            says_where,
            scaling_config=ScalingConfig(
                num_workers=1, use_gpu=True, resources_per_worker={"CPU": 0.5, "GPU": 1}
            ),
            torch_config=ProcessGroupConfig("nccl"),
            run_config=RunConfig(name="blind", storage_path=str(tmp_path)),
        ).fit()
    told = str(permanent_error(raised.value))
    assert told.startswith("the GPU of a worker on ")
    assert BLIND in told
    assert "\n" not in told


def says_where(config: dict) -> None:
    ray.train.report({})
    if ray.train.get_context().get_world_rank() == 1:
        group = distributed_c10d._get_default_group()
        said = {
            "interface": os.environ[GLOO_INTERFACE],
            "address": ray.util.get_node_ip_address(),
            "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "nvls": os.environ["NCCL_NVLS_ENABLE"],
            "timeout_s": group._get_backend(torch.device("cpu")).options._timeout.total_seconds(),
        }
        Path(config["to"]).write_text(json.dumps(said))


def test_workers_choose_before_the_group_is_made(ray_local, tmp_path):
    TorchTrainer(
        says_where,
        train_loop_config={"to": str(tmp_path / "said")},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        torch_config=ProcessGroupConfig(
            "gloo", timeout_s=1234, train=TrainConfig(reduction="fast", deterministic=True)
        ),
        run_config=RunConfig(name="group", storage_path=str(tmp_path)),
    ).fit()
    said = json.loads((tmp_path / "said").read_text())
    addresses = psutil.net_if_addrs()[said.pop("interface")]
    assert said.pop("address") in (each.address for each in addresses)
    # no GPU of the node is touched
    assert said == {"gpus": "", "deterministic": True, "nvls": "0", "timeout_s": 1234}


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
