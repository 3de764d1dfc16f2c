"""GPUs that torch cannot use are told of in one line; capabilities are made up."""

import pytest
import torch

from data.gpu import gpu_trouble, runs_on

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("built_for", "capability", "runs"),
    [
        (WHEEL, (7, 0), False),  # V100
        (WHEEL, (6, 1), False),
        (WHEEL, (7, 5), True),
        (WHEEL, (8, 9), True),  # as 8.6, of the same major version
        (WHEEL, (9, 0), True),
        (WHEEL, (12, 1), True),
        (WHEEL, (13, 0), True),  # intermediate code runs on what is newer
        (["sm_86"], (8, 0), False),
        (["sm_90a"], (9, 0), True),
        (["sm_90a"], (9, 1), False),
        (["sm_100f"], (10, 3), True),
        (["compute_70"], (9, 0), True),
        (["compute_90"], (8, 9), False),
        (["compute_90a"], (10, 0), False),
        ([], (9, 0), False),
    ],
)
def test_code_runs_on_its_own_generation_and_intermediate_code_on_later_ones(
    built_for, capability, runs
):
    assert runs_on(built_for, capability) is runs


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that gives this process GPUs: name -> compute capability."""

    def give(**found: tuple[int, int]) -> None:
        names, capabilities = list(found), list(found.values())
        for name, value in {
            "is_available": lambda: bool(found),
            "device_count": lambda: len(found),
            "get_device_name": names.__getitem__,
            "get_device_capability": capabilities.__getitem__,
            "get_arch_list": lambda: WHEEL,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    return give


@pytest.mark.parametrize(
    ("found", "precision", "told"),
    [
        ({}, "fp32", "torch sees none (give the container its GPUs"),
        ({"V100": (7, 0)}, "fp32", "V100 has compute capability 7.0, and this torch has code for"),
        ({"H100": (9, 0), "K80": (3, 7)}, "fp32", "K80 has compute capability 3.7"),
        ({"T4": (7, 5)}, "fp32", ""),
        ({"T4": (7, 5)}, "fp16", ""),
        ({"T4": (7, 5)}, "bf16", "T4 has compute capability 7.5, and train.precision bf16 needs"),
        ({"A100": (8, 0)}, "bf16", ""),
    ],
)
def test_what_torch_cannot_use_is_told_in_a_line(gpus, found, precision, told):
    gpus(**found)
    trouble = gpu_trouble(precision)
    assert trouble.startswith(told)
    assert bool(trouble) is bool(told)
    assert "\n" not in trouble


def test_a_torch_for_cpus_is_named(gpus, monkeypatch):
    gpus()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built for CPUs" in gpu_trouble()
