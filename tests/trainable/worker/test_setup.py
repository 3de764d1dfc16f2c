"""What workers compare before they train: the devices whose bits must be the same."""

import pytest
import torch

from tests.tiny import tiny_config
from tests.trainable.worker.fakes import FakeWorker, worker_config
from trainable.worker import setup
from trainable.worker.setup import check_devices


def of(reduction: str):
    return worker_config(tiny_config(reduction=reduction), "runs/x")


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that gives the workers GPUs, by rank."""

    def give(*names: str) -> FakeWorker:
        worker = FakeWorker()
        worker.device = torch.device("cuda")
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: names[0])
        monkeypatch.setattr(setup, "all_gather", lambda own: [own, *names[1:]])
        return worker

    return give


def test_exact_mode_refuses_devices_of_two_kinds(gpus):
    worker = gpus("NVIDIA L4", "NVIDIA A10G", "NVIDIA L4")
    with pytest.raises(ValueError, match=r"1 x NVIDIA A10G, 2 x NVIDIA L4: .*reduction fast"):
        check_devices(of("exact"), worker)
    check_devices(of("fast"), worker)
    check_devices(of("exact"), gpus("NVIDIA L4", "NVIDIA L4"))


def test_the_check_comes_before_anything_is_built(gpus, monkeypatch):
    monkeypatch.setattr(setup, "start_logging", lambda folder, rank: None)
    monkeypatch.setattr(setup, "set_up_torch", lambda *_: None)
    monkeypatch.setattr(setup, "on_all_ranks", lambda action, seconds: None)
    with pytest.raises(ValueError, match="devices of one kind"):
        setup.set_up(of("exact"), gpus("NVIDIA L4", "NVIDIA T4"))


def test_cpus_differ_by_their_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(setup, "all_gather", lambda own: [own, "cpu with AVX2"])
    with pytest.raises(ValueError, match="1 x cpu with AVX2, 1 x cpu with AVX512"):
        check_devices(of("exact"), FakeWorker())
