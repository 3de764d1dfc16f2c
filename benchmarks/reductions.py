"""Exact sums beside fast ones, without Ray: their time, and what rounding does to an update."""

import json
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.plan.epoch_plan import Position
from data.shards.manifest import read_manifest
from data.stream.collate import to_batch
from data.stream.loading import row_loader
from data.stream.spec import StreamSpec, schedule_of
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.distributed.wrapping import ddp_settings
from trainable.hardware import set_up_process
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.networks.registry import GENERATOR
from trainable.weights.slm import load_slm

DEMO = Path("job/presets/demo.yaml")
TIMED_STEPS = 12
UPDATES = 4  # steps whose updates are compared
# what gradients are added up in, beside `exact`
AVERAGED_IN = {"float64": torch.float64, "fast": torch.float32, "fast_bf16": torch.bfloat16}


def timed(rank: int, port: int, shards: str, out: str) -> None:
    """Be one of two workers: exact and fast steps in turn on the same batches of the demo corpus.

    Args:
        rank: rank of this worker.
        port: port of the process group.
        shards: folder of the demo corpus' shards.
        out: file to which rank 0 writes the seconds of each step.
    """
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(
        "gloo", address, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    cfg = read_config(DEMO)
    cfg = replace(cfg, data=replace(cfg.data, shards=shards))
    steps = {"fast": training_step(cfg, "fast"), "exact": training_step(cfg, "exact")}
    seconds: dict[str, list[float]] = {reduction: [] for reduction in steps}
    for number, batches in enumerate(batches_of(cfg, rank, 2)):
        for reduction, step in steps.items():
            set_up_process(step.train, gpu=False)
            dist.barrier()
            begin = time.perf_counter()
            step(batches)
            seconds[reduction].append(time.perf_counter() - begin)
            step.state.position = Position(number + 1, 0, number + 1)
    if rank == 0:
        Path(out).write_text(json.dumps(seconds), encoding="utf-8")
    dist.destroy_process_group()


def training_step(cfg: Config, reduction: Literal["fast", "exact"]) -> TrainingStep:
    """Return the demo's step, behind DDP if the reduction leaves the sum to DDP."""
    train = replace(cfg.train, reduction=reduction)
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    nets = build_networks(cfg.model, train, cfg.data, slm)
    wrapped: dict[str, nn.Module] = {
        name: net if reduction == "exact" else DistributedDataParallel(net, **ddp_settings(train))
        for name, net in nets.items()
    }
    return TrainingStep(TrainState(wrapped, slm, cfg.model, train), train, cfg.data)


def batches_of(cfg: Config, rank: int, world_size: int) -> list[list]:
    """Return this worker's micro-batches of the first steps."""
    train, data = cfg.train, cfg.data
    spec = StreamSpec.of_new_run(
        data=data,
        digest=read_manifest(data.shards).digest,
        seed=train.seed,
        micro_batches_per_step=train.micro_batches_per_step,
        segment_frames=train.segment_size // data.hop_length,
    )
    loader, schedule = row_loader(spec), schedule_of(spec)
    position, steps = Position(), []
    for _ in range(TIMED_STEPS):
        plan = schedule.plan(position.epoch)
        own = []
        for slot in schedule.shares(position, world_size)[rank]:
            loaded = loader.load(plan.micro_batch(position.epoch_step, slot))
            own.append((slot, to_batch(loaded.arrays).with_spectrogram(data)))
        steps.append(own)
        position = schedule.after(position)
    return steps


def overhead(shards: Path) -> dict[str, float]:
    """Return median seconds per step of both reductions at W = 2, and their ratio."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/seconds.json"
        mp.spawn(timed, args=(port, str(shards), out), nprocs=2, daemon=True)
        seconds = json.loads(Path(out).read_text(encoding="utf-8"))
    counted = {reduction: values[2:] for reduction, values in seconds.items()}  # warm by then
    ratios = [e / f for e, f in zip(counted["exact"], counted["fast"], strict=True)]
    middle = {f"seconds_{reduction}": median(values) for reduction, values in counted.items()}
    return {"exact_overhead": median(ratios), **middle}


def update_error(shards: Path) -> dict[str, float]:
    """Return `update_errors` of the demo's first steps."""
    cfg = read_config(DEMO)
    cfg = replace(cfg, data=replace(cfg.data, shards=str(shards)))
    set_up_process(replace(cfg.train, reduction="exact"), gpu=False)
    return update_errors(cfg, batches_of(cfg, 0, 1)[:UPDATES])


class Averages(TrainingStep):
    """Steps that change no weights, and average the same gradients in several ways.

    Attributes:
        found: reduction -> mean gradients of each step so far, one flat tensor each, float64.
    """

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.found: dict[str, list[torch.Tensor]] = {}
        self.step: dict[str, list[torch.Tensor]] = {}
        parameters = [p for own in self.state.trainable.values() for p in own]
        self.sums = {
            kind: {p: torch.zeros_like(p, dtype=dtype) for p in parameters}
            for kind, dtype in AVERAGED_IN.items()
        }
        for p in parameters:
            p.register_post_accumulate_grad_hook(self.add)

    @torch.no_grad()
    def add(self, p: nn.Parameter) -> None:
        """Add a micro-batch's gradient to the sums."""
        assert p.grad is not None
        for sums in self.sums.values():
            sums[p] += (p.grad / self.train.micro_batches_per_step).to(sums[p].dtype)

    def update(self, name: str) -> torch.Tensor:
        """Note the means instead of updating the weights."""
        self.state.reduction.finish(name)
        for p in self.state.trainable[name]:
            means = {kind: sums[p] for kind, sums in self.sums.items()} | {"exact": p.grad}
            for kind, mean in means.items():
                assert mean is not None
                self.step.setdefault(kind, []).append(mean.detach().double().flatten())
            for sums in self.sums.values():
                sums[p] = torch.zeros_like(sums[p])
            p.grad = None
        if name == GENERATOR:
            for kind, parts in self.step.items():
                self.found.setdefault(kind, []).append(torch.cat(parts))
            self.step = {}
        return torch.zeros(())


def update_errors(cfg: Config, steps: Sequence[list]) -> dict[str, float]:
    """Return how far AdamW's updates are from those of gradients averaged in float64.

    Args:
        cfg: the networks and their training, with `reduction: exact`.
        steps: the micro-batches of each step, all G of them.

    Returns:
        By reduction the root-mean-square of the difference, relative to that of the updates. The
        others are added up as that many workers do, one after another.
    """
    averages = averaged(cfg, steps)
    updates = {kind: updated(means, cfg) for kind, means in averages.items()}
    true = updates.pop("float64")
    return {kind: float((own - true).norm() / true.norm()) for kind, own in updates.items()}


def averaged(cfg: Config, steps: Sequence[list]) -> dict[str, list[torch.Tensor]]:
    """Return the mean gradients of steps that change no weights, see `Averages.found`.

    Args:
        cfg: see `update_errors`.
        steps: likewise.
    """
    step = training_step(cfg, "exact")
    averages = Averages(step.state, step.train, step.data)
    for batches in steps:
        averages(batches)
    return averages.found


def updated(means: Sequence[torch.Tensor], cfg: Config) -> torch.Tensor:
    """Return what AdamW makes of zeros by gradients, in float64."""
    weights = nn.Parameter(torch.zeros_like(means[0]))
    optimizer = torch.optim.AdamW([weights], betas=cfg.train.betas, eps=cfg.train.eps)
    for mean in means:
        weights.grad = mean
        optimizer.step()
    return weights.detach()
