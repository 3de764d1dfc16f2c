"""Switches of torch: they say what the configuration says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.test_house import ROOT
from trainable.config import TrainConfig
from trainable.hardware import ALLOCATOR, FFT_PLANS, set_up_process, set_up_torch

DETERMINISM = ("CUBLAS_WORKSPACE_CONFIG", "NCCL_NVLS_ENABLE")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
TRAIN = TrainConfig(reduction="fast")


@pytest.fixture(autouse=True)
def restored(monkeypatch) -> Iterator[None]:
    """Leave every switch as it was."""
    # noted, so that it is taken back where it was not set
    for name in (*ALLOCATOR, *DETERMINISM):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
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
    set_up_torch(replace(TRAIN, deterministic=True), 1, CPU)
    # torch accepts it for products, and its page on LSTMs names it
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_up_torch(replace(TRAIN, deterministic=True), 1, CPU)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


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


@pytest.mark.parametrize(
    ("gpu", "reduction", "deterministic", "expected"),
    [
        (True, "fast", False, {"PYTORCH_ALLOC_CONF"}),
        (True, "fast", True, {"PYTORCH_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG", "NCCL_NVLS_ENABLE"}),
        (True, "exact", False, {"PYTORCH_ALLOC_CONF", *DETERMINISM}),
        (False, "exact", False, set(DETERMINISM)),
        (False, "fast", False, set()),
    ],
)
def test_what_is_read_once_is_set_for_the_process(gpu, reduction, deterministic, expected):
    set_up_process(replace(TRAIN, reduction=reduction, deterministic=deterministic), gpu)
    assert {name for name in (*ALLOCATOR, *DETERMINISM) if name in os.environ} == expected
    if gpu:
        assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    strict = deterministic or reduction == "exact"
    assert torch.are_deterministic_algorithms_enabled() is strict
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("name", ALLOCATOR)
def test_an_allocator_that_the_user_chose_is_kept(monkeypatch, name):
    monkeypatch.setenv(name, "max_split_size_mb:64")
    set_up_process(TRAIN, gpu=True)
    assert [each for each in ALLOCATOR if each in os.environ] == [name]


def test_the_plans_of_fourier_transforms_are_bounded(monkeypatch):
    caches = [SimpleNamespace(max_size=4096) for _ in range(2)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.backends.cuda, "cufft_plan_cache", caches)
    set_up_torch(TRAIN, 1, GPU)
    assert [cache.max_size for cache in caches] == [4096, FFT_PLANS]
    set_up_torch(TRAIN, 1, torch.device("cuda:0"))
    assert caches[0].max_size == FFT_PLANS
