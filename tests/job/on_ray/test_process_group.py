"""The workers' process group uses the network by which Ray's nodes know each other."""

import os
from types import SimpleNamespace

import psutil
import pytest

from job.on_ray import process_group
from job.on_ray.process_group import GLOO_INTERFACE, choose_interface
from trainable.config import TrainConfig


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


def test_a_worker_that_cannot_compile_is_told(at, monkeypatch):
    at("10.0.0.5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert process_group.prepare_worker(TrainConfig(), gpu=False) == ""
    told = process_group.prepare_worker(TrainConfig(compile="parts"), gpu=False)
    assert told.startswith("a worker on 10.0.0.5: train.compile parts needs a compiler")
