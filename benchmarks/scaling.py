"""Step time on many GPUs, on paper: `python -m benchmarks.scaling [--seconds 0.25] [--max-utterances 64] [--measure]
[--json FILE]`.

A step on W workers takes as long as the slowest worker's micro-batch, and what DDP's all-reduces
stick out behind the backward passes. The first is drawn from the epoch plan of a synthetic corpus,
with a micro-batch's cost from counted FLOPs; the second is simulated bucket by bucket. --measure
compares it with two processes on this machine's CPU. docs/performance.md has the assumptions and
what came out.
"""

import argparse
import json
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
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
from job.settings.cli import read_config
from trainable.distributed.wrapping import unwrapped
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"
PARAMETERS = {"d": 46_747_132, "dur": 1_209_409, "wd": 1_173_634, "g": 61_020_017}
BUCKET = 25 * 2**20  # bytes of DDP's buckets
# GFLOP of a step, counted by benchmarks.step at 400 frames and 120 phones: what grows with the
# frames (encoders, flow, durations), and what every utterance costs (its segment's decoder,
# discriminators and WavLM)
GFLOP_PER_FRAME, GFLOP_PER_UTTERANCE = 0.25, 264.0
# Shares of these in a step, likewise: up to the discriminators' backward pass, that, up to the
# generator's, that
BEFORE_D, D_BACKWARD, BEFORE_G, G_BACKWARD = 0.33, 0.22, 0.08, 0.37
# of the generator's backward pass goes through the discriminators before its own gradients
FIRST_GRADIENT = 0.2


@dataclass(frozen=True)
class Network:
    """What connects the workers.

    Attributes:
        gpus: of a node; they reduce among themselves first.
        inside: bytes/s that a GPU sends within its node.
        between: bytes/s that a GPU sends to other nodes.
        hop: seconds of one message.
    """

    gpus: int = 8
    inside: float = 200e9
    between: float = 20e9
    hop: float = 15e-6

    def all_reduce(self, size: float, workers: int) -> float:
        """Seconds of an all-reduce of `size` bytes: a ring in the node, rings of every GPU's share between nodes."""
        local = min(workers, self.gpus)
        nodes = -(-workers // self.gpus)
        ring = 2 * (local - 1) * (size / local / self.inside + self.hop)
        across = 2 * (nodes - 1) * (size / local / nodes / self.between + self.hop)
        return ring + (across if nodes > 1 else 0.0)


def sticks_out(
    backward: float, first: float, size: float, reduce: Callable[[float], float]
) -> float:
    """Seconds that all-reduces go on after the backward pass that they overlap with.

    Args:
        backward: seconds of the backward pass.
        first: share of it that passes before the first gradient is there; the others come evenly.
        size: bytes of all gradients; they are reduced in buckets, one after another.
        reduce: seconds of an all-reduce of so many bytes.
    """
    full, rest = divmod(size, BUCKET)
    free, done = 0.0, 0.0
    for bucket in [BUCKET] * int(full) + ([rest] if rest else []):
        done += bucket
        ready = backward * (first + (1 - first) * done / size)
        free = max(free, ready) + reduce(bucket)
    return max(0.0, free - backward)


def costs(max_frames: int, max_utterances: int) -> np.ndarray:
    """Cost of every micro-batch of an epoch of the synthetic corpus, relative to their mean."""
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
    cost = np.array(
        [len(b) * (GFLOP_PER_UTTERANCE + GFLOP_PER_FRAME * frames[b].max()) for b in made]
    )
    return cost / cost.mean()


def slowest(cost: np.ndarray, workers: int) -> float:
    """Mean over the steps of their most expensive micro-batch's cost, in an order drawn at random."""
    rng = np.random.default_rng(0)
    return float(np.mean([rng.choice(cost, workers).max() for _ in range(500)]))


def model(seconds: float, workers: int, cost: np.ndarray, network: Network) -> dict[str, float]:
    """The parts of a step on so many workers.

    Args:
        seconds: of a step of the mean micro-batch on one GPU, nothing to communicate.
        workers: one micro-batch each.
        cost: of `costs`.
        network: between them.
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
    """Seconds of a call that both processes begin together."""
    dist.barrier()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def process(rank: int, port: int, out: str, steps: int) -> None:
    """One of two workers: steps of the demo's networks with and without DDP in turn, and all-reduces alone."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(
        "gloo", address, rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    cfg = read_config(DEMO)
    train = replace(cfg.train, micro_batches_per_step=2)
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    alone = build_networks(cfg.model, train, cfg.data, slm)
    wrapped = {
        name: DistributedDataParallel(net, broadcast_buffers=False)
        for name, net in build_networks(cfg.model, train, cfg.data, slm).items()
    }
    kinds: dict[str, TrainingStep] = {}
    for kind, nets in (("alone", alone), ("ddp", wrapped)):
        kinds[kind] = TrainingStep(TrainState(nets, slm, cfg.model, train), train, cfg.data)  # type: ignore[arg-type]
    batch = synthetic_batch(4, 160, 40, cfg.model, cfg.data)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(steps):
        for kind, step in kinds.items():
            seconds[kind].append(timed(lambda step=step: step([(rank, batch)])))  # type: ignore[misc]
            step.state.position = Position(number + 1, 0, number + 1)
    sizes = {
        name: 4 * sum(p.numel() for p in unwrapped(net).parameters()) for name, net in alone.items()
    }
    reduces = {
        size: median(timed(lambda s=size: dist.all_reduce(torch.zeros(s // 4))) for _ in range(9))  # type: ignore[misc]
        for size in (2**12, *sizes.values())
    }
    if rank == 0:
        Path(out).write_text(
            json.dumps({"seconds": seconds, "bytes": sizes, "all_reduce": reduces})
        )
    dist.destroy_process_group()


def measured(steps: int) -> dict[str, Any]:
    """Seconds a step of two processes without communication, with DDP, and what the simulation says of the latter."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, args=(port, f"{folder}/out.json", steps), nprocs=2, daemon=True)
        found = json.loads(Path(f"{folder}/out.json").read_text())
    points = sorted((float(size), float(each)) for size, each in found["all_reduce"].items())
    seconds = {kind: median(values[2:]) for kind, values in found["seconds"].items()}

    def reduce(size: float) -> float:
        return float(np.interp(size, [p[0] for p in points], [p[1] for p in points]))

    sizes, alone = found["bytes"], seconds["alone"]
    predicted = alone + sticks_out(
        D_BACKWARD * alone, 0.0, sum(sizes.values()) - sizes["g"], reduce
    )
    predicted += sticks_out(G_BACKWARD * alone, FIRST_GRADIENT, sizes["g"], reduce)
    ratios = [
        b / a
        for a, b in zip(found["seconds"]["alone"][2:], found["seconds"]["ddp"][2:], strict=True)
    ]
    return {
        "seconds_alone": alone,
        "seconds_ddp": seconds["ddp"],
        "ratio": median(ratios),
        "predicted_seconds_ddp": predicted,
        "predicted_ratio": predicted / alone,
        "all_reduce_seconds": points,
    }


def table(rows: Sequence[dict[str, float]]) -> str:
    """Rows of figures in columns."""
    lines = ["".join(f"{name:>16}" for name in rows[0])]
    lines += ["".join(f"{value:16.4g}" for value in row.values()) for row in rows]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    made.add_argument(
        "--seconds",
        type=float,
        default=0.25,
        help="of a step on one GPU: assumed, or measured there",
    )
    made.add_argument("--max-frames", type=int, default=8000, help="data.plan.max_frames")
    made.add_argument("--max-utterances", type=int, default=64, help="data.plan.max_utterances")
    made.add_argument(
        "--between", type=float, default=Network.between, help="bytes/s of a GPU to other nodes"
    )
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64, 512])
    made.add_argument("--measure", action="store_true", help="also two processes on this CPU")
    made.add_argument("--steps", type=int, default=12, help="of --measure")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    cost = costs(args.max_frames, args.max_utterances)
    network = replace(Network(), between=args.between)
    rows = [{"workers": w} | model(args.seconds, w, cost, network) for w in args.workers]
    print(table(rows))
    result: dict[str, Any] = {"model": rows, "cost_spread": [float(cost.min()), float(cost.max())]}
    if args.measure:
        result["measured"] = measured(args.steps)
        print(json.dumps(result["measured"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
