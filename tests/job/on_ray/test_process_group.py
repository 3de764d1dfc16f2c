"""The workers' process group uses the network by which Ray's nodes know each other."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from job.on_ray import process_group
from job.on_ray.process_group import GLOO_INTERFACE, ProcessGroupConfig, choose_interface


@pytest.fixture
def at(monkeypatch):
    """This node has an address and some interfaces, and the environment names none."""
    found = {
        "lo": ["127.0.0.1", "::1"],
        "docker0": ["172.17.0.1"],
        "ens5": ["0a:58:0a", "10.0.0.5", "2001:db8::5"],
    }
    listed = {
        name: [SimpleNamespace(address=a) for a in addresses] for name, addresses in found.items()
    }

    def set_up(address: str) -> None:
        monkeypatch.setenv(GLOO_INTERFACE, "")  # for what is set to go again
        monkeypatch.delenv(GLOO_INTERFACE)
        monkeypatch.setattr(process_group.ray.util, "get_node_ip_address", lambda: address)
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: listed)

    return set_up


@pytest.mark.parametrize(
    ("address", "interface"), [("10.0.0.5", "ens5"), ("2001:db8::5", "ens5"), ("127.0.0.1", "lo")]
)
def test_the_interface_of_the_nodes_address_is_chosen(at, address, interface):
    at(address)
    choose_interface()
    assert os.environ[GLOO_INTERFACE] == interface


def test_what_the_environment_says_stays(at, monkeypatch):
    at("127.0.0.1")
    monkeypatch.setenv(GLOO_INTERFACE, "eth7")
    choose_interface()
    assert os.environ[GLOO_INTERFACE] == "eth7"


def test_an_address_of_no_interface_leaves_it_to_gloo(at):
    at("198.51.100.1")
    choose_interface()
    assert GLOO_INTERFACE not in os.environ


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
