"""What a checkpoint adds to the training: `python -m benchmarks.checkpoint [--preset demo|full] [--json FILE]`.

Takes steps on made-up batches and saves in between as a run does; quiet steps and steps beside
which a checkpoint is written take turns. As in a run on a CPU, there is a worker of one thread for
every core: the others take the same steps and save nothing, so that the writing has no core of its
own. Prints medians over the saves:

held_s       seconds that the training thread waits for a save: the copy to host memory
slowed_s     seconds by which the steps are longer, all together, while the checkpoint is
serialised, hashed and written written_s    seconds from the save until the checkpoint is durable
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
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
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
WARM_UP, QUIET, ROUNDS = 1, {"demo": 4, "full": 2}, {"demo": 3, "full": 2}
FRAMES = {"demo": 80, "full": 64}


def config(preset: str) -> Config:
    """The preset, without models that would have to be fetched."""
    cfg = read_config(PRESETS[preset])
    return replace(cfg, model=replace(cfg.model, slm=replace(cfg.model.slm, path="random")))


def build(cfg: Config, device: torch.device) -> TrainingStep:
    """A state like a run's, and its step."""
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate).to(device)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    state = TrainState(
        {name: net.to(device) for name, net in nets.items()}, slm, cfg.model, cfg.train
    )
    return TrainingStep(state, cfg.train, cfg.data)


def batch(cfg: Config, frames: int, seed: int) -> TtsBatch:
    """Two utterances of noise."""
    g = torch.Generator().manual_seed(seed)
    phones, tokens = frames // 4, 8
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
    """Take steps until killed, or left alone."""
    torch.set_num_threads(1)
    cfg = config(preset)
    step, batches = build(cfg, torch.device("cpu")), [(0, batch(cfg, FRAMES[preset], 1))]
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        step(batches)


def measure(preset: str, folder: str) -> dict[str, float]:
    """Quiet steps and saves in turn."""
    cfg, device = config(preset), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = build(cfg, device)
    G = cfg.train.micro_batches_per_step
    batches = [(slot, batch(cfg, FRAMES[preset], slot).to(device)) for slot in range(G)]
    saver = Saver(folder, cfg.train.checkpoint)
    taken = 0

    def timed() -> float:
        nonlocal taken
        begin = time.perf_counter()
        step(batches)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken += 1
        step.state.position = Position(taken, 0, taken)
        return time.perf_counter() - begin

    for _ in range(WARM_UP):
        timed()
    quiet, held, slowed, written = [], [], [], []
    for _ in range(ROUNDS[preset] + 1):
        before = [timed() for _ in range(QUIET[preset])]
        info = CheckpointInfo(step.state.position, "benchmark", "benchmark", {}, {}, 1)
        begin = time.perf_counter()
        writing = saver.save(step.state, info, to_yaml(cfg))
        waited = time.perf_counter() - begin
        beside = []

        def note_end(_: Future[None], begin: float = begin) -> None:
            written.append(time.perf_counter() - begin)

        writing.add_done_callback(note_end)
        while not writing.done():
            beside.append(timed())
        quiet += before
        held.append(waited)
        slowed.append(sum(beside) - len(beside) * median(before))
        print(
            f"quiet {median(before):.2f} s a step, held {waited:.3f} s, {len(beside)} steps slowed {slowed[-1]:.2f} s"
        )
    size = sum(path.stat().st_size for path in Path(checkpoints(folder)[0]).iterdir())
    assert saver.problem(last=True) is None, saver.error
    # the first save also makes the host buffers
    return {
        "step_s": median(quiet),
        "held_s": median(held[1:]),
        "held_first_s": held[0],
        "slowed_s": median(slowed[1:]),
        "written_s": median(written[1:]),
        "checkpoint_mb": size / 1e6,
        "saves": len(held) - 1,
        "ratio": (median(held[1:]) + median(slowed[1:])) / (INTERVAL * median(quiet)),
    }


def main() -> None:
    """The command."""
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
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
