"""What a checkpoint adds to the training: `python -m benchmarks.checkpoint [--preset demo|full]`.

It takes steps on synthetic batches and saves in between as a run does; quiet steps, and steps
beside which a checkpoint is written, take turns. As in a run on a CPU, there is a worker of one
thread for every core: the others take the same steps and save nothing, so that the writing has no
core of its own. It prints medians over the saves:

held_s       seconds that the training thread waits for a save: the copy to host memory
slowed_s     seconds by which all steps together are longer while the checkpoint is serialised,
             hashed and written
written_s    seconds from the save until the checkpoint is durable
ratio        (held_s + slowed_s) / (50 quiet steps)

`demo` is the demo preset, `full` has networks of the published size (job/presets/base.yaml), whose
step takes long on a CPU: what a faster device's ratio is follows from held_s and slowed_s.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from statistics import median

import torch

from data.plan.epoch_plan import Position
from data.stream.collate import TtsBatch
from job.settings.cli import read_config, to_yaml
from job.settings.config import Config
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.run.format import CheckpointInfo
from trainable.run.saver import Saver
from trainable.run.storage import checkpoints
from trainable.weights.slm import load_slm

INTERVAL = 50
PRESETS = {"demo": "job/presets/demo.yaml", "full": "job/presets/base.yaml"}
WARM_UP = 1  # steps before anything is timed
QUIET = {"demo": 4, "full": 2}  # quiet steps per round
ROUNDS = {"demo": 3, "full": 2}  # saves that count
FRAMES = {"demo": 80, "full": 64}  # of the longer of the two utterances


def config(preset: str) -> Config:
    """Return the preset, without models that would have to be fetched."""
    cfg = read_config(PRESETS[preset])
    return replace(cfg, model=replace(cfg.model, slm=replace(cfg.model.slm, path="random")))


def build(cfg: Config, device: torch.device) -> TrainingStep:
    """Return the step of a state like a run's."""
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate).to(device)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    state = TrainState(
        {name: net.to(device) for name, net in nets.items()}, slm, cfg.model, cfg.train
    )
    return TrainingStep(state, cfg.train, cfg.data)


def batch(cfg: Config, frames: int, seed: int) -> TtsBatch:
    """Return two utterances of noise, the longer one of `frames` frames."""
    g = torch.Generator().manual_seed(seed)
    phones = frames // 4
    tokens = 8
    lengths = torch.tensor([frames, frames - 9])

    def integers(high: int) -> torch.Tensor:
        return torch.randint(0, high, (2, phones), generator=g)

    return TtsBatch(
        rows=torch.arange(2),
        x=integers(100),
        x_lengths=torch.tensor([phones, phones - 2]),
        tone=integers(11),
        language=integers(3),
        bert=torch.randn(2, tokens, cfg.model.bert_channels, generator=g).half(),
        token_index=integers(tokens),
        y=0.1 * torch.randn(2, 1, frames * cfg.data.hop_length, generator=g),
        y_lengths=lengths * cfg.data.hop_length,
        spec_lengths=lengths,
        speakers=torch.arange(2),
    ).with_spectrogram(cfg.data)


def other_worker(preset: str) -> None:
    """Take steps until this process is killed, or its parent has ended."""
    torch.set_num_threads(1)
    cfg = config(preset)
    step = build(cfg, torch.device("cpu"))
    batches = [(0, batch(cfg, FRAMES[preset], 1))]
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        step(batches)


class Timed:
    """The training thread: steps that are timed, one after another.

    Args:
        cfg: the configuration.
        preset: name of the preset.
        device: device that computes.
    """

    def __init__(self, cfg: Config, preset: str, device: torch.device) -> None:
        self.device = device
        self.step = build(cfg, device)
        self.taken = 0
        slots = range(cfg.train.micro_batches_per_step)
        self.batches = [(slot, batch(cfg, FRAMES[preset], slot).to(device)) for slot in slots]

    def seconds(self) -> float:
        """Take a step; return how long it took."""
        begin = time.perf_counter()
        self.step(self.batches)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.taken += 1
        self.step.state.position = Position(self.taken, 0, self.taken)
        return time.perf_counter() - begin


@dataclass(frozen=True)
class Round:
    """Quiet steps, a save, and the steps beside it; all in seconds.

    Attributes:
        quiet: each quiet step.
        held: wait of the training thread for the save.
        beside: each step beside which the checkpoint was written.
        written: from the save until the checkpoint was durable.
    """

    quiet: list[float]
    held: float
    beside: list[float]
    written: float

    @property
    def slowed(self) -> float:
        """Seconds by which the steps beside the writing were longer, all together."""
        return sum(self.beside) - len(self.beside) * median(self.quiet)


def one_round(timed: Timed, saver: Saver, text: str, quiet: int) -> Round:
    """Take quiet steps, save, and take steps until the checkpoint is written.

    Args:
        timed: the training thread.
        saver: writes the checkpoint.
        text: configuration of the run, as YAML.
        quiet: number of quiet steps.
    """
    before = [timed.seconds() for _ in range(quiet)]
    info = CheckpointInfo(timed.step.state.position, "benchmark", "benchmark", {}, {}, 1)
    begin = time.perf_counter()
    writing = saver.save(timed.step.state, info, text)
    held = time.perf_counter() - begin

    ends: SimpleQueue[float] = SimpleQueue()
    writing.add_done_callback(lambda _: ends.put(time.perf_counter()))
    beside = []
    while not writing.done():
        beside.append(timed.seconds())
    return Round(before, held, beside, ends.get() - begin)


def measure(preset: str, folder: str) -> dict[str, float]:
    """Return the figures of a preset, whose checkpoints are written to a folder."""
    cfg = config(preset)
    timed = Timed(cfg, preset, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    saver = Saver(folder, cfg.train.checkpoint)
    for _ in range(WARM_UP):
        timed.seconds()

    rounds = []
    for _ in range(ROUNDS[preset] + 1):
        rounds.append(one_round(timed, saver, to_yaml(cfg), QUIET[preset]))
        last = rounds[-1]
        print(
            f"quiet {median(last.quiet):.2f} s per step, held {last.held:.3f} s, "
            f"{len(last.beside)} steps slowed {last.slowed:.2f} s"
        )
    size = sum(path.stat().st_size for path in Path(checkpoints(folder)[0]).iterdir())
    assert saver.problem(last=True) is None, saver.error

    step = median(seconds for each in rounds for seconds in each.quiet)
    counted = rounds[1:]  # the first save also makes the host buffers
    held = median(each.held for each in counted)
    slowed = median(each.slowed for each in counted)
    return {
        "step_s": step,
        "held_s": held,
        "held_first_s": rounds[0].held,
        "slowed_s": slowed,
        "written_s": median(each.written for each in counted),
        "checkpoint_mb": size / 1e6,
        "saves": len(counted),
        "ratio": (held + slowed) / (INTERVAL * step),
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    made.add_argument("--preset", choices=PRESETS, default="demo")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    torch.set_num_threads(1)
    workers = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    others = [
        spawn.Process(target=other_worker, args=(args.preset,), daemon=True)
        for _ in range(workers - 1)
    ]
    for process in others:
        process.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(args.preset, folder)
    finally:
        for process in others:
            process.kill()
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
