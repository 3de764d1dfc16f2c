"""Memory: rehearsals leave no trace in a run, and what does not fit is named."""

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.plan.epoch_plan import EpochPlan, Position, plan_epoch
from data.settings.plan import PlanConfig
from data.shards.manifest import COLUMNS, Manifest, columns_of
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.learning.test_step import spread_of, wrapped_as_workers_do
from trainable.learning import rehearsal
from trainable.learning.rehearsal import (
    OutOfMemory,
    costliest,
    is_out_of_memory,
    naming,
    rehearse,
    yet_to_come,
)
from trainable.learning.step import TrainingStep

FRAMES = np.array([20, 24, 30, 30, 40, 64])


def manifest() -> Manifest:
    rows = [{"id": f"u{i}", "frames": int(n), "phones": 5 + i} for i, n in enumerate(FRAMES)]
    return Manifest("x", {}, columns_of(pa.Table.from_pylist(rows, COLUMNS))[0])


def plan_of(epoch: int) -> EpochPlan:
    return plan_epoch(
        np.arange(6),
        FRAMES,
        11 + 2 * np.arange(6),
        seed=0,
        epoch=epoch,
        micro_batches_per_step=2,
        max_frames=64,
        max_utterances=3,
    )


def trace(cfg, rank: int, world_size: int, when: str) -> tuple[str, list[str]]:
    """Digest and losses of two steps of a worker, after a rehearsal or without one."""
    torch.set_num_threads(1)
    cfg = replace(cfg, train=replace(cfg.train, rehearse=when))
    state = tiny_state(cfg)
    if world_size > 1:
        state = replace(state, nets=wrapped_as_workers_do(cfg.train, state.nets))
    step, losses = TrainingStep(state, cfg.train, cfg.data), []
    assert rehearse(step, plan_of, manifest()) == ""
    for i in range(2):
        slots = range(rank, cfg.train.micro_batches_per_step, world_size)
        own = [(j, tiny_batch(cfg, 10 * i + j)) for j in slots]
        losses.append(str({tag: value.item() for tag, value in step(own).scalars.items()}))
        state.position = Position(i + 1, i + 1, 0)
        assert rehearse(step, plan_of, manifest()) == ""
    tensors = [t for name in sorted(state.nets) for t in state.nets[name].state_dict().values()]
    tensors += [t for o in state.optimizers.values() for s in o.state.values() for t in s.values()]
    tensors += [] if state.averaged is None else state.averaged.average.values()
    return hashlib.sha256(
        b"".join(t.detach().numpy().tobytes() for t in tensors)
    ).hexdigest(), losses


def variants():
    yield "exact", {"reduction": "exact"}, {}
    yield "fast", {"reduction": "fast"}, {}
    # what these keep does not depend on the number of micro-batches
    one = {"micro_batches_per_step": 1}
    yield "bf16", one | {"precision": "bf16"}, {}
    yield "spectral", one, {"use_spectral_norm": True}
    yield "averaged", one | {"ema_decay": 0.9}, {}


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "train", "model"), variants(), ids=[name for name, _, _ in variants()]
)
def test_a_rehearsal_leaves_the_bits_alone(name, train, model):
    cfg = tiny_config(**{"micro_batches_per_step": 2} | train)
    cfg = replace(cfg, model=replace(cfg.model, **model))
    assert trace(cfg, 0, 1, "always") == trace(cfg, 0, 1, "never")


def both(cfg, rank: int, world_size: int) -> list:
    return [trace(cfg, rank, world_size, when) for when in ("always", "never")]


@pytest.mark.processes
@pytest.mark.parametrize("reduction", ["fast", pytest.param("exact", marks=pytest.mark.slow)])
def test_a_rehearsal_behind_ddp_leaves_the_bits_alone_and_waits_for_nobody(reduction, tmp_path):
    cfg = tiny_config(micro_batches_per_step=2, reduction=reduction)
    for with_it, without in spread_of(both, cfg, 2, tmp_path):
        assert with_it == without


def test_the_costliest_of_what_is_to_come_are_tried(monkeypatch):
    lengths = np.stack([FRAMES, 11 + 2 * np.arange(6)])
    for begin in range(plan_of(0).steps):
        plan = plan_of(0)
        batches = [plan.micro_batch(s, j) for s in range(begin, plan.steps) for j in range(2)]
        shapes = [(len(b), int(FRAMES[b].max()), int(lengths[1][b].max())) for b in batches]
        found = costliest(plan, begin, lengths)
        assert found <= set(shapes)
        assert max(b * f for b, f, _ in found) == max(b * f for b, f, _ in shapes)
        assert max(b * f * p for b, f, p in found) == max(b * f * p for b, f, p in shapes)
    cfg = tiny_config(micro_batches_per_step=2)
    step, tried = TrainingStep(tiny_state(cfg), cfg.train, cfg.data), []
    monkeypatch.setattr(rehearsal, "rehearse_one", lambda _, shape: tried.append(shape) or 0)
    assert rehearse(step, plan_of, manifest()) == ""
    assert not tried  # auto, on a CPU
    step.train = replace(cfg.train, rehearse="always")
    rehearse(step, plan_of, manifest())
    assert tried


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError("no"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: "
        "you tried to"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


@pytest.mark.medium
@pytest.mark.parametrize(
    "error", ERRORS, ids=[type(e).__name__ + str(i) for i, e in enumerate(ERRORS)]
)
def test_a_micro_batch_that_does_not_fit_is_named(monkeypatch, error):
    cfg = tiny_config(micro_batches_per_step=2)
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)

    def fails(self, real, generated):
        if step.at is not None and step.at[0] == 1:
            raise error
        return losses(self, real, generated)

    losses = TrainingStep.generator_losses
    monkeypatch.setattr(TrainingStep, "generator_losses", fails)
    with pytest.raises(OutOfMemory) as caught, naming(step, np.array(["anna", "bert", "c"])):
        step([(j, tiny_batch(cfg, j)) for j in range(2)])
    message = str(caught.value)
    assert "micro-batch 1 of its step" in message
    assert "2 utterances padded to 40 frames and 21 phones, 80 frames in all" in message
    assert f"data.plan.max_frames (now {cfg.data.plan.max_frames})" in message
    assert message.endswith("Its utterances: anna, bert")


@pytest.mark.parametrize(
    ("told", "full"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY", True),
        ("HIP out of memory. Tried to allocate 2.00 GiB", True),
        ("hipErrorOutOfMemory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUSOLVER_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("Unable to find an engine to execute this computation", True),
        ("std::bad_alloc", True),
        ("[Errno 12] Cannot allocate memory", True),
        ("NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)", True),
        (
            "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
            "Cuda failure 2 'out of memory'",
            True,
        ),
        (
            "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
            "Cuda failure 700 'an illegal memory access was encountered'",
            False,
        ),
        ("ncclSystemError: System call (e.g. socket, malloc) or external library call", False),
        ("ncclRemoteError: A call failed possibly due to a network error", False),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", False),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", False),
        ("shapes differ", False),
    ],
)
def test_full_memory_has_many_names(told, full):
    assert is_out_of_memory(RuntimeError(told)) is full


def test_a_gpus_rehearsal_tells_what_is_taken_with_its_gaps(monkeypatch, caplog):
    cfg = tiny_config(micro_batches_per_step=2)
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)
    step.device = torch.device("cuda")
    monkeypatch.setattr(rehearsal, "made_up", lambda shape, width, data, _: tiny_batch(cfg, 0))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device=None, **rest: empty(*size, **rest))
    for name, value in {
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: 2 * rehearsal.GIB,
        "max_memory_reserved": lambda _: 3 * rehearsal.GIB,
        "memory_reserved": lambda _: 1 * rehearsal.GIB,
        "mem_get_info": lambda _: (4 * rehearsal.GIB, 8 * rehearsal.GIB),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(rehearsal.Rehearsal, "__call__", lambda self, share: None)
    monkeypatch.setattr(rehearsal.log, "propagate", True)
    with caplog.at_level("INFO", logger="bert_vits2_ray"):
        assert rehearse(step, plan_of, manifest()) == ""
    assert "take 3.0 GiB of the device's 8.0; 5.0 are free, 1.0 of them kept" in caplog.text


def test_other_errors_pass(monkeypatch):
    cfg = tiny_config(micro_batches_per_step=1)
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)
    step.at = (0, tiny_batch(cfg, 0))
    with pytest.raises(RuntimeError, match="shapes"), naming(step, np.array([])):
        raise RuntimeError("shapes differ")


@pytest.mark.medium
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({}, "data.plan.max_frames"),
        (
            {"plan": PlanConfig(mode="cost")},
            "lower data.plan.cost.budget (now 6600)",
        ),
        ({"plan": PlanConfig(mode="buckets", max_utterances=2)}, "data.plan.max_utterances"),
    ],
)
def test_a_rehearsal_that_fails_says_what_to_lower(monkeypatch, change, key):
    cfg = tiny_config(micro_batches_per_step=2, rehearse="always")
    cfg = replace(cfg, data=replace(cfg.data, **change))
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)

    def fails(*_):
        raise ERRORS[0]

    monkeypatch.setattr(TrainingStep, "backward", fails)
    error = rehearse(step, lambda epoch: plan_of(0), manifest())
    assert error.startswith("out of memory before the first step")
    assert key in error or "data.max_seconds" in error
    assert "2.00 GiB" in error


@pytest.mark.medium
def test_what_the_first_step_adds_for_good_is_reckoned_with():
    cfg = tiny_config(micro_batches_per_step=3, reduction="exact")
    state = tiny_state(cfg)
    sizes = {name: sum(p.numel() for p in own) for name, own in state.trainable.items()}
    kept = 4 * 2 * max(sizes["g"], sum(sizes.values()) - sizes["g"])
    assert yet_to_come(state) == 8 * sum(sizes.values()) + kept
    TrainingStep(state, cfg.train, cfg.data)([(i, tiny_batch(cfg, i)) for i in range(3)])
    assert yet_to_come(state) == kept
