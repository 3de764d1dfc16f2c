"""Step time on many GPUs, on paper: `python -m benchmarks.scaling [--seconds 0.25] [--measure]`.

A step on W workers takes as long as the slowest worker's micro-batch, and the part of DDP's
all-reduces that sticks out behind the backward passes. The first is drawn from the epoch plan of a
synthetic corpus, with a micro-batch's cost from counted FLOPs; the second is simulated bucket by
bucket. --measure compares it with two processes on this machine's CPU. docs/performance.md has the
assumptions and the results.
"""

import argparse
import json
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from benchmarks.padding import synthetic
from benchmarks.step import synthetic_batch
from data.plan.epoch_plan import Position, plan_epoch
from job.reports.console import cell, table
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.distributed.wrapping import unwrapped
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"
PARAMETERS = {"d": 46_747_132, "dur": 1_209_409, "wd": 1_173_634, "g": 61_020_017}
BUCKET = 25 * 2**20  # bytes of DDP's buckets
# GFLOP of a step, counted by benchmarks.step at 400 frames and 120 phones:
GFLOP_PER_FRAME = 0.25  # what grows with the frames: encoders, flow, durations
GFLOP_PER_UTTERANCE = 264.0  # what each segment costs: decoder, discriminators and WavLM
# shares of these in a step, counted in the same way; the rest are the forward passes
D_BACKWARD = 0.22  # the discriminators' backward pass
G_BACKWARD = 0.37  # the generator's
# share of the generator's backward pass that goes through the discriminators, before the first
# gradient of its own
FIRST_GRADIENT = 0.2


@dataclass(frozen=True)
class Network:
    """What connects the workers.

    Attributes:
        gpus: GPUs per node; they reduce among themselves first.
        inside: bytes/s that a GPU sends within its node.
        between: bytes/s that a GPU sends to other nodes.
        hop: seconds per message.
    """

    gpus: int = 8
    inside: float = 200e9
    between: float = 20e9
    hop: float = 15e-6

    def all_reduce(self, size: float, workers: int) -> float:
        """Return the seconds of an all-reduce of `size` bytes.

        It is a ring within each node, and rings of every GPU's share between nodes.
        """
        local = min(workers, self.gpus)
        nodes = -(-workers // self.gpus)
        ring = 2 * (local - 1) * (size / local / self.inside + self.hop)
        across = 2 * (nodes - 1) * (size / local / nodes / self.between + self.hop)
        return ring + (across if nodes > 1 else 0.0)


def sticks_out(
    backward: float, first: float, size: float, reduce: Callable[[float], float]
) -> float:
    """Return the seconds that all-reduces last beyond the backward pass that they overlap with.

    Args:
        backward: seconds of the backward pass.
        first: share of it before the first gradient; the other gradients come evenly.
        size: bytes of all gradients; they are reduced in buckets, one after another.
        reduce: returns the seconds of an all-reduce of so many bytes.
    """
    full, rest = divmod(size, BUCKET)
    done = 0.0  # bytes of gradients so far
    free = 0.0  # when the last all-reduce ends
    for bucket in [BUCKET] * int(full) + ([rest] if rest else []):
        done += bucket
        ready = backward * (first + (1 - first) * done / size)
        free = max(free, ready) + reduce(bucket)
    return max(0.0, free - backward)


def costs(max_frames: int, max_utterances: int) -> np.ndarray:
    """Return the relative costs of an epoch's micro-batches of the synthetic corpus; mean 1."""
    frames, tokens = synthetic(0.6)
    epoch = plan_epoch(
        np.arange(len(frames)),
        frames,
        tokens,
        seed=0,
        epoch=0,
        micro_batches_per_step=1,
        max_frames=max_frames,
        max_utterances=max_utterances,
    )
    made = np.split(epoch.order, epoch.offsets[1:-1])
    per_utterance = [GFLOP_PER_UTTERANCE + GFLOP_PER_FRAME * frames[b].max() for b in made]
    cost = np.array([len(b) * each for b, each in zip(made, per_utterance, strict=True)])
    return cost / cost.mean()


def slowest(cost: np.ndarray, workers: int) -> float:
    """Return the mean cost of a step's most expensive micro-batch, in a random order."""
    rng = np.random.default_rng(0)
    return float(np.mean([rng.choice(cost, workers).max() for _ in range(500)]))


def model(seconds: float, workers: int, cost: np.ndarray, network: Network) -> dict[str, float]:
    """Return the parts of a step on so many workers, seconds, and the efficiency.

    Args:
        seconds: seconds of a step of the mean micro-batch on one GPU, without communication.
        workers: workers, with one micro-batch each.
        cost: relative costs of micro-batches, from `costs`.
        network: what connects the workers.
    """

    def reduce(size: float) -> float:
        return network.all_reduce(size, workers)

    of_d = 4 * (PARAMETERS["d"] + PARAMETERS["dur"] + PARAMETERS["wd"])
    out = sticks_out(D_BACKWARD * seconds, 0.0, of_d, reduce)
    out += sticks_out(G_BACKWARD * seconds, FIRST_GRADIENT, 4 * PARAMETERS["g"], reduce)
    # int64, after the backward pass
    exact = sum(reduce(8 * count) for count in PARAMETERS.values())
    waits = (slowest(cost, workers) - 1) * seconds
    return {
        "all_reduce": reduce(of_d) + reduce(4 * PARAMETERS["g"]),
        "sticks_out": out,
        "exact": exact,
        "waits": waits,
        "step": seconds + out + waits,
        "efficiency": seconds / (seconds + out + waits),
    }


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call that both processes begin together."""
    dist.barrier()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def process(rank: int, port: int, out: str, steps: int) -> None:
    """Be one of two workers: steps with and without DDP in turn, and all-reduces alone.

    Args:
        rank: rank of this worker.
        port: port of the process group.
        out: file to which rank 0 writes what it measured.
        steps: steps of each kind.
    """
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(
        "gloo", address, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    cfg = read_config(DEMO)
    kinds = {"alone": demo_step(cfg, ddp=False), "ddp": demo_step(cfg, ddp=True)}
    batch = synthetic_batch(4, 160, 40, cfg.model, cfg.data)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(steps):
        for kind, step in kinds.items():
            seconds[kind].append(timed(partial(step, [(rank, batch)])))
            step.state.position = Position(number + 1, 0, number + 1)

    sizes = {
        name: 4 * sum(p.numel() for p in unwrapped(net).parameters())
        for name, net in kinds["alone"].state.nets.items()
    }
    reduces = {
        size: median(timed(partial(dist.all_reduce, torch.zeros(size // 4))) for _ in range(9))
        for size in (2**12, *sizes.values())
    }
    if rank == 0:
        found = {"seconds": seconds, "bytes": sizes, "all_reduce": reduces}
        Path(out).write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def demo_step(cfg: Config, ddp: bool) -> TrainingStep:
    """Return the step of the demo's networks for two workers, with or without DDP."""
    train = replace(cfg.train, micro_batches_per_step=2)
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    nets: dict[str, Any] = build_networks(cfg.model, train, cfg.data, slm)
    if ddp:
        nets = {
            name: DistributedDataParallel(net, broadcast_buffers=False)
            for name, net in nets.items()
        }
    return TrainingStep(TrainState(nets, slm, cfg.model, train), train, cfg.data)


def measured(steps: int) -> dict[str, Any]:
    """Return seconds per step of two processes with and without DDP, measured and simulated."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, args=(port, f"{folder}/out.json", steps), nprocs=2, daemon=True)
        found = json.loads(Path(f"{folder}/out.json").read_text(encoding="utf-8"))
    points = sorted((float(size), float(each)) for size, each in found["all_reduce"].items())
    seconds = {kind: median(values[2:]) for kind, values in found["seconds"].items()}

    def reduce(size: float) -> float:
        return float(np.interp(size, [p[0] for p in points], [p[1] for p in points]))

    sizes = found["bytes"]
    alone = seconds["alone"]
    of_d = sum(sizes.values()) - sizes["g"]
    predicted = alone + sticks_out(D_BACKWARD * alone, 0.0, of_d, reduce)
    predicted += sticks_out(G_BACKWARD * alone, FIRST_GRADIENT, sizes["g"], reduce)

    times = found["seconds"]
    ratios = [b / a for a, b in zip(times["alone"][2:], times["ddp"][2:], strict=True)]
    return {
        "seconds_alone": alone,
        "seconds_ddp": seconds["ddp"],
        "ratio": median(ratios),
        "predicted_seconds_ddp": predicted,
        "predicted_ratio": predicted / alone,
        "all_reduce_seconds": points,
    }


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    made.add_argument(
        "--seconds",
        type=float,
        default=0.25,
        help="seconds of a step on one GPU: assumed, or measured there",
    )
    made.add_argument("--max-frames", type=int, default=8000, help="data.plan.max_frames")
    made.add_argument("--max-utterances", type=int, default=64, help="data.plan.max_utterances")
    made.add_argument(
        "--between", type=float, default=Network.between, help="bytes/s per GPU to other nodes"
    )
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64, 512])
    made.add_argument("--measure", action="store_true", help="also two processes on this CPU")
    made.add_argument("--steps", type=int, default=12, help="steps of --measure")
    made.add_argument("--json", type=Path, help="write the figures")
    return made


def main() -> None:
    """Run the command."""
    args = command_line().parse_args()
    cost = costs(args.max_frames, args.max_utterances)
    network = replace(Network(), between=args.between)
    rows = [{"workers": w} | model(args.seconds, w, cost, network) for w in args.workers]
    cells = [[cell(value, ".4g") for value in row.values()] for row in rows]
    print(table(list(rows[0]), cells, align_right=True))
    result: dict[str, Any] = {"model": rows, "cost_spread": [float(cost.min()), float(cost.max())]}
    if args.measure:
        result["measured"] = measured(args.steps)
        print(json.dumps(result["measured"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
