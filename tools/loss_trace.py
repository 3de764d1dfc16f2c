"""The first steps' losses to the last bit: `python -m tools.loss_trace FILE [--against FILE]`.

A refactor, or a change for speed that is meant to leave the numbers alone, leaves the trace of the
demo's networks as it was, on the same machine with the same build of torch: write a trace before,
and compare with it after. `--set` changes the configuration, as `--set train.precision=bf16`.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.step import synthetic_batch
from data.plan.epoch_plan import Position
from job.settings.cli import config_of
from trainable.hardware import set_up_torch
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"


def trace(steps: int, overrides: list[str]) -> list[dict[str, str]]:
    """Return every scalar of every step as a hexadecimal float, and last the parameters' digest."""
    changes = ["train.micro_batches_per_step=1", *overrides]
    argv = ["--config", str(DEMO), *(f"--{change}" for change in changes)]
    cfg = config_of(argv)
    set_up_torch(cfg.train, 1, torch.device("cpu"))
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    state = TrainState(nets, slm, cfg.model, cfg.train)
    step = TrainingStep(state, cfg.train, cfg.data)
    lines = []
    for number in range(steps):
        batch = synthetic_batch(2, 48 + number % 3, 12 + number % 2, cfg.model, cfg.data)
        lines.append({tag: value.item().hex() for tag, value in step([(0, batch)]).scalars.items()})
        state.position = Position(number + 1, 0, number + 1)
    return [*lines, {"digest": state.digest()}]


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m tools.loss_trace", description=__doc__)
    made.add_argument("file", type=Path, help="where to write the trace")
    made.add_argument(
        "--against", type=Path, help="an earlier trace; differences end the command with status 1"
    )
    made.add_argument("--steps", type=int, default=20)
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="setting to change"
    )
    args = made.parse_args()
    lines = trace(args.steps, args.set)
    args.file.write_text(json.dumps(lines, indent=1), encoding="utf-8")
    if args.against:
        before = json.loads(args.against.read_text(encoding="utf-8"))
        for number, (old, new) in enumerate(zip(before, lines, strict=True)):
            # a loss that the micro-batch does not have is written as NaN, or not at all
            differs = [tag for tag in old | new if old.get(tag, "nan") != new.get(tag, "nan")]
            if differs:
                raise SystemExit(f"step {number}: other bits in {', '.join(differs)}")
        print(f"{len(lines) - 1} steps have the same bits")


if __name__ == "__main__":
    main()
