"""Switches of torch: they say what the configuration says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.test_house import ROOT
from trainable.config import TrainConfig
from trainable.hardware import set_up_torch

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TRAIN = TrainConfig(reduction="fast")


@pytest.fixture(autouse=True)
def restored(monkeypatch) -> Iterator[None]:
    """Leave every switch as it was."""
    # noted, so that it is taken back where it was not set
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    # of this process alone, which has begun
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
    cudnn = torch.backends.cudnn
    threads, matmul, tf32 = (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
    )
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)
    cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads):
    set_up_torch(TRAIN, threads, CPU)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [
        ("auto", CPU, "highest"),
        ("auto", GPU, "high"),
        ("highest", GPU, "highest"),
        ("high", CPU, "high"),
        ("medium", GPU, "medium"),
    ],
)
def test_matmul_precision(setting, device, expected):
    set_up_torch(replace(TRAIN, matmul_precision=setting), 1, device)
    assert torch.get_float32_matmul_precision() == expected
    assert torch.backends.cudnn.allow_tf32 == (expected != "highest")  # convolutions follow


@pytest.mark.parametrize(
    ("reduction", "asked", "expected"),
    [("fast", False, False), ("fast", True, True), ("exact", False, True), ("exact", True, True)],
)
def test_determinism(reduction, asked, expected):
    set_up_torch(replace(TRAIN, reduction=reduction, deterministic=asked), 1, CPU)
    assert torch.are_deterministic_algorithms_enabled() == expected
    assert not torch.backends.cudnn.benchmark
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == expected


def test_a_workspace_that_the_user_chose_is_kept(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_up_torch(replace(TRAIN, deterministic=True), 1, CPU)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


SHAPES = """
import torch
from trainable.config import TrainConfig
from trainable.hardware import set_up_torch

set_up_torch(TrainConfig(), 1, torch.device("cpu"))
for _ in range(2):
    print("round", flush=True)
    for length in range(100, 1200):
        torch.nn.functional.conv1d(torch.ones(2, 8, length), torch.ones(8, 8, 3))
"""


@pytest.mark.processes
def test_operations_of_as_many_shapes_as_a_step_has_are_compiled_once():
    env = {
        name: value
        for name, value in os.environ.items()
        if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    }
    env["ONEDNN_VERBOSE"] = "profile_create"
    done = subprocess.run(
        [sys.executable, "-c", SHAPES],
        env=env,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    _, first, second = done.stdout.split("round\n")
    if "create:" not in first:
        pytest.skip("torch has no oneDNN on this machine")
    assert first.count("create:cache_miss") > 1024
    assert second.count("create:cache_miss") == 0
