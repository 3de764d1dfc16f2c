"""How much a micro-batch may hold: `python -m benchmarks.batch_finder [--device cuda] [--precision bf16] [--memory GIB]
[--lengths 100 430 1720] [--checkpointing] [--check] [--json FILE]`.

Measures the peak memory of steps of the full model with one and with two utterances of each length,
in frames, and proposes `data.plan.max_frames` and `max_utterances` that fit the memory for all of
them: long utterances cost attention and short ones the segment that is decoded of each. Memory is
what torch reserves on a GPU, on a CPU the process's.
"""

import argparse
import json
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.step import full_state, peak_gib, synthetic_batch
from data.config import DataConfig
from trainable.config import ModelConfig, TrainConfig
from trainable.hardware import set_up_torch
from trainable.learning.step import TrainingStep

USED = 0.9  # of the memory: the rest is for what other shapes fragment
PHONES_PER_FRAME = 0.3  # as benchmarks.padding has it


def measured(settings: Mapping[str, Any], utterances: int, frames: int) -> float:
    """Peak GiB of two steps, the second with all moments in place."""
    device = torch.device(settings["device"])
    train = TrainConfig(
        precision=settings["precision"], activation_checkpointing=settings["checkpointing"]
    )
    model, data = ModelConfig(), DataConfig()
    set_up_torch(train, settings["threads"], device)
    step = TrainingStep(full_state(train, model, data, device), train, data)
    batch = synthetic_batch(
        utterances, frames, max(1, int(PHONES_PER_FRAME * frames)), model, data
    ).to(device)
    for _ in range(2):
        step([(0, batch)])
    return torch.cuda.max_memory_reserved() / 2**30 if device.type == "cuda" else peak_gib(device)


def alone(settings: Mapping[str, Any], utterances: int, frames: int) -> float:
    """`measured` in a process of its own, whose peak nothing else has raised."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (settings, utterances, frames))


def total_gib(device: torch.device) -> float:
    """Memory of the device, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(meminfo["MemTotal"].split()[0]) / 2**20


def propose(peaks: Mapping[int, tuple[float, float]], memory: float) -> dict[str, Any]:
    """The budget of a micro-batch that fits the memory.

    Args:
        peaks: frames of an utterance -> peak GiB of a step with one and with two of them.
        memory: GiB that may be used.

    Returns:
        `max_frames` and `max_utterances` for the plan, and `utterances` that fit, a length.

    Raises:
        ValueError: not even one utterance of a length fits.
    """
    fitting = {}
    for frames, (one, two) in peaks.items():
        each = max(two - one, 1e-3)
        fitting[frames] = 1 + int((memory - one) / each)
        if memory < one:
            raise ValueError(
                f"one utterance of {frames} frames takes {one:.1f} GiB, and there are {memory:.1f}"
            )
    most = fitting[min(fitting)]
    # the shortest are limited by their number, the others by their frames
    frames_each = [
        frames * count
        for frames, count in fitting.items()
        if frames > min(fitting) or len(fitting) == 1
    ]
    return {"max_frames": min(frames_each), "max_utterances": most, "utterances": fitting}


def main() -> None:
    """The command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.batch_finder", description=__doc__)
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
    made.add_argument("--check", action="store_true", help="run steps of the proposal, too")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    settings, device = vars(args), torch.device(args.device)
    memory = USED * (args.memory or total_gib(device))
    peaks = {
        frames: (alone(settings, 1, frames), alone(settings, 2, frames)) for frames in args.lengths
    }
    result = propose(peaks, memory) | {"memory_gib": memory, "peaks_gib": peaks}
    if args.check:
        counts = {
            frames: min(result["max_utterances"], result["max_frames"] // frames)
            for frames in args.lengths
        }
        result["checked_gib"] = {
            frames: alone(settings, count, frames) for frames, count in counts.items()
        }
    print(json.dumps(result, indent=1))
    print(
        f"--data.plan.max_frames {result['max_frames']} --data.plan.max_utterances {result['max_utterances']}"
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
