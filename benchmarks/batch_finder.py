"""How much a micro-batch may hold: `python -m benchmarks.batch_finder [--device cuda] ...`.

It measures the peak memory of steps of the full model with utterances of each length, in frames:
with twice as many until they make the peak, and not the networks and their moments. From that it
proposes `data.plan.max_frames` and `max_utterances` that fit the memory for all lengths: long
utterances cost attention, and short ones the segment that is decoded of each. Memory is what torch
reserves on a GPU, and the process's on a CPU.

`--fit RUN` reads the metrics of a run instead and prints the costs, in milliseconds, that its own
steps tell, as one line of YAML; no step is taken. The budget stays as large as that run's.
`--count` counts the FLOPs of a step instead: the costs in GFLOP, before there is a run.
"""

import argparse
import json
import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from benchmarks.cost_fit import fit
from benchmarks.parts import FlopCount
from benchmarks.plans import without_values
from benchmarks.step import full_state, peak_gib, synthetic_batch
from data.config import DataConfig
from job.settings.cli import Arguments, run
from trainable.config import TrainConfig
from trainable.hardware import set_up_torch
from trainable.learning.rehearsal import made_up
from trainable.learning.step import TrainingStep
from trainable.model_config import ModelConfig

USED = 0.9  # share of the memory; batches of other shapes fragment the rest
PHONES_PER_FRAME = 0.3  # as in benchmarks.padding
GROWN = 0.5  # of a peak: what twice the utterances add to it at least
MOST = 4096  # utterances that are measured


class Peaks(NamedTuple):
    """Peak memory of a step, GiB, with `utterances` of a length, and with twice as many."""

    utterances: int
    gib: float
    doubled_gib: float


def grown(peak: Callable[[int], float], memory: float) -> Peaks:
    """Measure with twice as many utterances until they make the peak, or it nears the memory.

    With few, a step takes most where the weights are changed, and one more utterance adds nothing.

    Args:
        peak: returns the GiB of a step with so many utterances.
        memory: GiB that may be used.
    """
    utterances, gib = 1, peak(1)
    while True:
        found = Peaks(utterances, gib, peak(2 * utterances))
        if found.doubled_gib >= min((1 + GROWN) * gib, memory / 2) or 2 * utterances >= MOST:
            return found
        utterances, gib = 2 * utterances, found.doubled_gib


def measured(settings: Mapping[str, Any], utterances: int, frames: int) -> float:
    """Return the peak memory of two steps, GiB; the second has all moments in place.

    Args:
        settings: options of the command.
        utterances: utterances of the micro-batch.
        frames: frames of each utterance.
    """
    device = torch.device(settings["device"])
    train = TrainConfig(
        precision=settings["precision"], activation_checkpointing=settings["checkpointing"]
    )
    model = ModelConfig()
    data = DataConfig()
    set_up_torch(train, settings["threads"], device)
    step = TrainingStep(full_state(train, model, data, device), train, data)

    phones = max(1, int(PHONES_PER_FRAME * frames))
    batch = synthetic_batch(utterances, frames, phones, model, data).to(device)
    for _ in range(2):
        step([(0, batch)])
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 2**30
    return peak_gib(device)


def alone(settings: Mapping[str, Any], utterances: int, frames: int) -> float:
    """Return `measured` from a process of its own, whose peak nothing else has raised."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (settings, utterances, frames))


def total_gib(device: torch.device) -> float:
    """Return the memory of the device, or of this machine for a CPU, GiB."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    meminfo = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    )
    return int(meminfo["MemTotal"].split()[0]) / 2**20


def propose(peaks: Mapping[int, Peaks], memory: float) -> dict[str, Any]:
    """Return the budget of a micro-batch that fits the memory.

    Args:
        peaks: frames of an utterance -> what steps with such utterances take.
        memory: GiB that may be used.

    Returns:
        `max_frames` and `max_utterances` for the plan, and the `utterances` that fit, per length.

    Raises:
        ValueError: not even one utterance of a length fits.
    """
    fitting = {}
    for frames, (utterances, gib, doubled_gib) in peaks.items():
        each = max(doubled_gib - gib, 1e-3) / utterances
        fitting[frames] = utterances + math.floor((memory - gib) / each)
        if fitting[frames] < 1:
            least = gib - (utterances - 1) * each
            raise ValueError(
                f"one utterance of {frames} frames takes {least:.1f} GiB, and there are "
                f"{memory:.1f}"
            )

    # the shortest are limited by their number, the others by their frames
    shortest = min(fitting)
    longer = [frames for frames in fitting if frames > shortest] or [shortest]
    return {
        "max_frames": min(frames * fitting[frames] for frames in longer),
        "max_utterances": fitting[shortest],
        "utterances": fitting,
    }


def command_line() -> Arguments:
    """Return the parser of the command's options."""
    made = Arguments("python -m benchmarks.batch_finder", __doc__ or "")
    made.add_argument("--device", default="cpu")
    made.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument(
        "--memory", type=float, help="GiB; default: all that the device has, or the machine"
    )
    made.add_argument(
        "--lengths", type=int, nargs="+", default=[100, 430, 1720], help="frames: 1.2, 5 and 20 s"
    )
    made.add_argument(
        "--checkpointing", action="store_true", help="with train.activation_checkpointing"
    )
    made.add_argument("--check", action="store_true", help="run steps of the proposal too")
    made.add_argument("--fit", metavar="RUN", help="folder or URI of a run: fit data.plan.cost")
    made.add_argument("--count", action="store_true", help="count GFLOP for data.plan.cost")
    made.add_argument("--json", type=Path, help="write the figures")
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    if args.fit:
        result, keys = told(fit(args.fit))
    elif args.count:
        result, keys = told(counted(args.lengths))
    else:
        result, keys = measured_bounds(args)
    print(json.dumps(result, indent=1))
    print(keys)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


def told(result: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what was found about costs, and the keys to set as one line of YAML."""
    keys = {"data": result["data"]}
    return result, yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, width=999).strip()


def counted(lengths: Sequence[int]) -> dict[str, Any]:
    """Return the costs of utterances by FLOPs: `data` (the keys), and `gflop` per length.

    A step's FLOPs are those of its utterances; with phones that grow with the frames, those of an
    utterance are a quadratic of its frames.

    Args:
        lengths: frames, three or more.

    Raises:
        ValueError: there are too few lengths.
    """
    if len(set(lengths)) < 3:
        raise ValueError(f"--lengths is {' '.join(map(str, lengths))}: give three to count")
    model, data = ModelConfig(), DataConfig()
    gflop = {}
    with without_values(model, TrainConfig(), data) as step:
        for frames in lengths:
            shape = (2, frames, 2 * int(PHONES_PER_FRAME * frames) + 1)
            with FlopCount() as count:
                step([(0, made_up(shape, model.bert_channels, data, step.device))])
            gflop[frames] = count.corrected.get_total_flops() / shape[0] / 1e9
    cell, frame, utterance = np.polyfit(lengths, list(gflop.values()), 2)
    found = {"utterance": utterance, "frame": frame, "cell": cell}
    cost = {key: float(f"{value:.3g}") for key, value in found.items()}
    return {"data": {"plan": {"mode": "cost", "cost": cost}}, "gflop": gflop}


def measured_bounds(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return what fits the memory, and the options to set."""
    settings = vars(args)
    memory = USED * (args.memory or total_gib(torch.device(args.device)))
    peaks = {
        frames: grown(partial(alone, settings, frames=frames), memory) for frames in args.lengths
    }
    result = propose(peaks, memory) | {"memory_gib": memory, "peaks_gib": peaks}
    most_frames = result["max_frames"]
    most_utterances = result["max_utterances"]
    if args.check:
        counts = {frames: min(most_utterances, most_frames // frames) for frames in args.lengths}
        result["checked_gib"] = {
            frames: alone(settings, count, frames) for frames, count in counts.items()
        }
    keys = f"--data.plan.max_frames {most_frames} --data.plan.max_utterances {most_utterances}"
    return result, keys


if __name__ == "__main__":
    run(main)
