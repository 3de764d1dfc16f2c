"""Step time on many GPUs, on paper: `python -m benchmarks.scaling [--seconds 0.25] [--measure]`.

A step on W workers takes as long as the slowest worker's micro-batches, and the part of DDP's
all-reduces that sticks out behind the backward passes. The first is read from the epoch plan of a
synthetic corpus, made and shared as training does it; the second is simulated bucket by bucket.
`shipped` is by how much four GPUs of each shipped cluster file are faster than one, with
job/presets/cluster.yaml, on the nodes that the file tries first (`shipped_fallback`: on others);
`costs` is what they cost. --measure compares the model with two processes on this machine's CPU.
docs/performance.md has the assumptions and the results.
"""

import argparse
import itertools
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

from benchmarks.padding import plan, synthetic
from benchmarks.shipped import FILES, GIGABIT, MACHINES, NodeType, choices, per_hour
from benchmarks.step import synthetic_batch
from data.plan.costs import shares, utterance_costs
from data.plan.epoch_plan import EpochPlan, Position, rounded_up
from data.settings.plan import CostConfig, PlanConfig
from job.reports.console import cell, table
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.distributed.exact_sums import BLOCK
from trainable.distributed.wrapping import unwrapped
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"
PARAMETERS = {"d": 46_747_132, "dur": 1_209_409, "wd": 1_173_634, "g": 61_020_017}
BUCKET = 25 * 2**20  # bytes of DDP's buckets
# shares of these in a step, counted in the same way; the rest are the forward passes
D_BACKWARD = 0.22  # the discriminators' backward pass
G_BACKWARD = 0.37  # the generator's
# share of the generator's backward pass that goes through the discriminators, before the first
# gradient of its own
FIRST_GRADIENT = 0.2
MILLION = 1_000_000  # utterances
SIGMA = 0.6  # spread of the durations, as benchmarks.padding
SIZES = (8, 64, 512)  # micro-batches per global step
FIVE_SECONDS = 432  # frames
COSTS = ("utterance", "frame", "cell")
SHIPPED_GPUS = 4
PRESET = Path(__file__).parents[1] / "job/presets/cluster.yaml"
HOP = 50e-6  # seconds per message over TCP
# Bytes/s that an L4 sends to others of its node. It has PCIe 4.0 with 16 lanes, 32 GB/s per
# direction, but no way to other GPUs but through the host's memory: assumed, not measured.
THROUGH_HOST = 5e9
# bytes per gradient that are sent
BYTES = {"fast": 4.0, "exact": 4 + 1 / BLOCK, "fast_bf16": 2.0}


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
    backward: float, first: float, size: float, reduce: Callable[[float], float], lag: int = 0
) -> float:
    """Return the seconds that all-reduces last beyond the backward pass that they overlap with.

    Args:
        backward: seconds of the backward pass.
        first: share of it before the first gradient; the other gradients come evenly.
        size: bytes of all gradients; they are reduced in buckets, one after another.
        reduce: returns the seconds to reduce a bucket with so many bytes of gradients.
        lag: a bucket is sent when so many further ones are complete.
    """
    full, rest = divmod(size, BUCKET)
    buckets = [BUCKET] * int(full) + ([rest] if rest else [])
    complete = np.cumsum(buckets)
    free = 0.0  # when the last all-reduce ends
    for number, bucket in enumerate(buckets):
        done = complete[min(number + lag, len(buckets) - 1)]
        ready = backward * (first + (1 - first) * done / size)
        free = max(free, ready) + reduce(bucket)
    return max(0.0, float(free) - backward)


def costs(made: EpochPlan, frames: np.ndarray, cost: CostConfig, pad_to: int) -> np.ndarray:
    """Return the true costs of an epoch's micro-batches, in order, relative to the mean: [M].

    Args:
        made: plan of the epoch, whatever costs it was made with.
        frames: frames of each utterance, int64 [n].
        cost: what micro-batches truly cost.
        pad_to: multiple that frames are padded to.
    """
    longest = np.maximum.reduceat(frames[made.order], made.offsets[:-1])
    each = utterance_costs(cost, rounded_up(longest, pad_to))
    total = cost.micro_batch + np.diff(made.offsets) * each
    return total / total.mean()


def efficiency(cost: np.ndarray, G: int, workers: int) -> float:
    """Return the share of their time that W workers work who share steps of G micro-batches.

    Args:
        cost: costs of an epoch's micro-batches, in order.
        G: micro-batches per global step.
        workers: W.
    """
    steps = cost[: len(cost) // G * G].reshape(-1, G)
    if workers == G:
        return float(steps.mean() / steps.max(1).mean())
    slowest_of = [
        max(sum(step[j] for j in own) for own in shares(step, workers)) for step in steps.tolist()
    ]
    return float(steps.sum(1).mean() / workers / np.mean(slowest_of))


def off(cost: CostConfig, factors: tuple[float, ...]) -> CostConfig:
    """Return costs with each of COSTS off by a factor, and a budget of as many 5 s utterances."""
    wrong = replace(cost, **{k: f * getattr(cost, k) for k, f in zip(COSTS, factors, strict=True)})
    was, now = (float(utterance_costs(own, np.array(FIVE_SECONDS))) for own in (cost, wrong))
    return replace(wrong, budget=cost.budget * now / was)


def planned(settings: PlanConfig) -> dict[str, Any]:
    """Return how well epochs of the synthetic corpus keep workers busy, by the plan alone.

    Args:
        settings: the plan; its costs are taken for true.
    """
    frames, tokens = synthetic(SIGMA, MILLION)
    true = settings.cost

    def busy(own: PlanConfig) -> dict[str, float]:
        cost = costs(plan(frames, tokens, 0, own), frames, true, own.pad_to.frames)
        return {str(G): efficiency(cost, G, G) for G in SIZES}

    cost = costs(plan(frames, tokens, 0, settings), frames, true, settings.pad_to.frames)
    shared = {f"G/{part}": min(efficiency(cost, G, G // part) for G in SIZES) for part in (2, 4)}
    wrong = {
        factors: busy(replace(settings, cost=off(true, factors)))
        for factors in itertools.product((0.8, 1.0, 1.2), repeat=len(COSTS))
    }
    one = [own for factors, own in wrong.items() if sum(f != 1 for f in factors) == 1]
    return {
        "efficiency": {str(G): efficiency(cost, G, G) for G in SIZES},
        "efficiency_off_20": min(min(own.values()) for own in one),
        "efficiency_off_20_combined": {
            str(G): min(own[str(G)] for own in wrong.values()) for G in SIZES
        },
        "shared": shared,
        "cost_spread": [float(cost.min()), float(cost.max())],
    }


def shipped(seconds: float, cost: np.ndarray) -> dict[str, Any]:
    """Return by how much four GPUs of each cluster file are faster than one, and what they cost.

    Args:
        seconds: seconds of the mean micro-batch on one GPU.
        cost: relative costs of micro-batches, from `costs`.

    Returns:
        shipped: file -> reduction -> speed-up, on the nodes that are tried first.
        shipped_fallback: the same on the single GPUs that are tried last.
        costs: file -> node type -> dollars per hour, with fast reduction.
    """
    G = read_config(PRESET).train.micro_batches_per_step
    found: dict[str, Any] = {"shipped": {}, "shipped_fallback": {}, "costs": {}}
    for file in FILES:
        kinds = choices(file)
        sped = [speed_ups(kind, G, seconds, cost) for kind in kinds]
        found["shipped"][file] = {key: sped[0][key] for key in ("fast", "exact")}
        found["shipped_fallback"][file] = sped[-1]
        found["costs"][file] = {
            kind.name: per_hour(
                file, kind, SHIPPED_GPUS, traffic_gb(kind, G * seconds / own["fast"])
            )
            for kind, own in zip(kinds, sped, strict=True)
        }
    return found


def speed_ups(kind: NodeType, G: int, seconds: float, cost: np.ndarray) -> dict[str, float]:
    """Return by how much four GPUs of a node type are faster than one, by what they send."""
    machine = MACHINES[kind.machine]
    between = machine.gbit * GIGABIT / machine.gpus
    network = Network(machine.gpus, inside=THROUGH_HOST, between=between, hop=HOP)
    steps = model(seconds, SHIPPED_GPUS, cost, network, G // SHIPPED_GPUS)
    names = {"fast": "step", "exact": "step_exact", "fast_bf16": "step_fast_bf16"}
    return {kind: G * seconds / steps[name] for kind, name in names.items()}


def traffic_gb(kind: NodeType, step: float) -> float:
    """Return the GB per hour that four GPUs send to other nodes, with steps of so many seconds."""
    nodes = SHIPPED_GPUS / kind.gpus
    size = BYTES["fast"] * sum(PARAMETERS.values())
    return 2 * (nodes - 1) * size * 3600 / step / 1e9


def slowest(cost: np.ndarray, workers: int) -> float:
    """Return the mean cost of a step's most expensive micro-batch, in a random order."""
    rng = np.random.default_rng(0)
    return float(np.mean([rng.choice(cost, workers).max() for _ in range(500)]))


def model(
    seconds: float, workers: int, cost: np.ndarray, network: Network, micro_batches: int = 1
) -> dict[str, float]:
    """Return the parts of a step on so many workers, seconds, and the efficiency.

    Args:
        seconds: seconds of a step of the mean micro-batch on one GPU, without communication.
        workers: workers.
        cost: relative costs of micro-batches, from `costs`.
        network: what connects the workers.
        micro_batches: micro-batches per worker and step, of which the last is overlapped.
    """
    work = micro_batches * seconds
    if micro_batches == 1:
        waits = (slowest(cost, workers) - 1) * seconds
    else:
        waits = work / efficiency(cost, micro_batches * workers, workers) - work
    out = {kind: left_over(seconds, kind, workers, network) for kind in BYTES}
    gradients = PARAMETERS["d"] + PARAMETERS["dur"] + PARAMETERS["wd"], PARAMETERS["g"]
    return {
        "all_reduce": sum(network.all_reduce(4 * count, workers) for count in gradients),
        "sticks_out": out["fast"],
        "sticks_out_exact": out["exact"],
        "waits": waits,
        "step": work + out["fast"] + waits,
        "step_exact": work + out["exact"] + waits,
        "step_fast_bf16": work + out["fast_bf16"] + waits,
        "efficiency": work / (work + out["fast"] + waits),
        "efficiency_exact": work / (work + out["exact"] + waits),
    }


def left_over(seconds: float, kind: str, workers: int, network: Network) -> float:
    """Return the seconds per step that sending gradients lasts beyond the backward passes.

    Args:
        seconds: seconds of a micro-batch.
        kind: one of BYTES.
        workers: workers.
        network: what connects the workers.
    """

    def reduce(size: float) -> float:
        sent = network.all_reduce(size * min(4.0, BYTES[kind]) / 4, workers)
        # the scales of exact sums are agreed on before
        return sent + (network.all_reduce(size / 4 / BLOCK, workers) if kind == "exact" else 0.0)

    lag = 1 if kind == "exact" else 0
    of_d = 4 * (PARAMETERS["d"] + PARAMETERS["dur"] + PARAMETERS["wd"])
    behind_d = sticks_out(D_BACKWARD * seconds, 0.0, of_d, reduce, lag)
    of_g = 4 * PARAMETERS["g"]
    return behind_d + sticks_out(G_BACKWARD * seconds, FIRST_GRADIENT, of_g, reduce, lag)


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
    made.add_argument("--mode", choices=("cost", "budget"), default="cost", help="data.plan.mode")
    made.add_argument("--max-frames", type=int, help="data.plan.max_frames")
    made.add_argument("--max-utterances", type=int, help="data.plan.max_utterances")
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
    settings = PlanConfig(
        mode=args.mode, max_frames=args.max_frames, max_utterances=args.max_utterances
    ).settled()
    frames, tokens = synthetic(SIGMA, MILLION)
    made = plan(frames, tokens, 0, settings)
    cost = costs(made, frames, CostConfig(), settings.pad_to.frames)
    network = replace(Network(), between=args.between)
    rows = [{"workers": w} | model(args.seconds, w, cost, network) for w in args.workers]
    cells = [[cell(value, ".4g") for value in row.values()] for row in rows]
    print(table(list(rows[0]), cells, align_right=True))
    result: dict[str, Any] = {"model": rows} | planned(settings)
    result |= shipped(args.seconds, cost)
    print(json.dumps({key: own for key, own in result.items() if key != "model"}, indent=1))
    if args.measure:
        result["measured"] = measured(args.steps)
        print(json.dumps(result["measured"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
