"""What a long run's records cost: `python -m benchmarks.records [--json FILE]`.

- resume_s, resume_read_mb: a resume from near the end of `--steps` steps, whose metrics.jsonl lies
  on a disk; MB of all reads of this process.
- event_files: TensorBoard's files of `--board-steps` steps of a second each in an object store,
  which is made up, as is the clock; the events of one step and of one image are real.
- consumed_bytes_per_line: G -> bytes of `consumed` in a line.
- runs_s: `python -m job.runs` over `--runs` runs on a disk, its start included.

The temporary folder needs 2 GB for a million steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import psutil
import torch

from data.plan.epoch_plan import Position
from job.settings.cli import read_config, to_yaml
from trainable.config import TrainConfig
from trainable.learning.judgement import Validation
from trainable.learning.report import StepReport
from trainable.run import growing
from trainable.run.format import (
    CHECKSUMS,
    CONFIG,
    FORMAT,
    METRICS,
    STATE,
    CheckpointInfo,
    checkpoint_name,
)
from trainable.run.heartbeat import RUNNING, write_status
from trainable.run.metrics_file import read_metrics
from trainable.run.records import RunLog
from trainable.run.storage import claim

DEMO = Path("job/presets/demo.yaml")
LOSSES = 40  # of a step, as the full preset's
LINES_AT_ONCE = 1000
BEHIND = 500  # steps that the run was ahead of its newest checkpoint
CHECKPOINTS, VALIDATIONS = 4, 100  # of each run
FIELDS = {
    "epoch": 3,
    "lr": 0.0002,
    "world_size": 4,
    "seconds": 1.0,
    "seconds_waiting": 0.01,
    "utterances": 64,
    "padding": 0.01,
    "peak_gib": 20.5,
}


def report(micro_batches: int, images: int = 0) -> StepReport:
    """Return a made-up report of a step with G micro-batches."""
    chance = torch.Generator().manual_seed(micro_batches)
    values = torch.rand(LOSSES + 4, generator=chance)
    tags = [f"loss/network/part_{number}" for number in range(LOSSES)]
    tags += [f"grad_norm_{name}" for name in ("g", "d", "wd", "dur")]
    return StepReport(
        dict(zip(tags, values, strict=True)),
        present=torch.ones(LOSSES, dtype=torch.bool),
        consumed=torch.randint(2**32, (micro_batches,), generator=chance).double(),
        broken=torch.zeros(micro_batches, dtype=torch.bool),
        images={
            f"image_{i}": torch.rand(128, 400, generator=chance).cumsum(1) for i in range(images)
        },
    )


def one_line(folder: Path, micro_batches: int) -> bytes:
    """Return the line that a run writes of its first step."""
    log = RunLog(str(folder), 0, writes=True)
    log.add(report(micro_batches), str, step=1, **FIELDS)
    log.flush()
    return (folder / METRICS).read_bytes()


def consumed_bytes(folder: Path, micro_batches: int) -> int:
    """Return the bytes that tell in a line what a step with G micro-batches has consumed."""
    one_line(folder, micro_batches)
    (line,) = read_metrics(str(folder))
    return len(json.dumps(line["consumed"]))


def resume(folder: Path, steps: int) -> dict[str, float]:
    """Return what it takes to open the records of a run after so many steps."""
    first = one_line(folder, 4)
    assert first.count(b'"step": 1,') == 1
    before, after = first.split(b'"step": 1,')
    with (folder / METRICS).open("wb") as file:
        for begin in range(1, steps + 1, LINES_AT_ONCE):
            numbers = range(begin, min(begin + LINES_AT_ONCE, steps + 1))
            file.write(b"".join(b'%b"step": %d,%b' % (before, n, after) for n in numbers))

    this = psutil.Process()
    read, began = this.io_counters().read_chars, time.perf_counter()
    RunLog(str(folder), max(steps - BEHIND, 0), writes=True)
    return {
        "resume_s": time.perf_counter() - began,
        "resume_read_mb": (this.io_counters().read_chars - read) / 1e6,
    }


def event_files(steps: int) -> int:
    """Return how many files TensorBoard's events of a run make in an object store."""
    train = TrainConfig()
    log = RunLog("memory://records", 0, writes=True)
    log.add(report(4, images=4), str, step=1, **FIELDS)
    (line,) = log.flush()
    images = log.board.take()
    log.scalars(line)
    scalars = log.events.held + log.events.written

    written: set[str] = set()
    clock = 0.0
    with (
        patch.object(growing, "put_file", lambda uri, content: written.add(uri)),
        patch.object(growing.time, "monotonic", lambda: clock),
    ):
        events = RunLog("memory://records", 0, writes=True).events
        for step in range(train.log_every_steps, steps + 1, train.log_every_steps):
            clock = float(step)
            events.append(scalars + (images if step % train.image_every_steps == 0 else b""))
            if step % train.checkpoint.every_steps == 0:
                events.persist()
    return len(written)


def make_run(folder: Path, number: int, config: bytes) -> None:
    """Write what job.runs reads of a run."""
    folder.mkdir()
    (folder / CONFIG).write_bytes(config)
    (folder / METRICS).write_bytes(b'{"step": 1}\n')
    write_status(str(folder), claim(str(folder)), RUNNING)
    validations = tuple(Validation(10 * n, 0.5, 0.5, 0.4) for n in range(VALIDATIONS))
    for step in range(10, 10 * (CHECKPOINTS + 1), 10):
        scores = {"eval/mel": 1 / (number + step), "eval/mcd": 5.0}
        info = CheckpointInfo(
            Position(step), "digest", "code", {}, {}, 4, scores, validations=validations
        )
        checkpoint = folder / checkpoint_name(step)
        checkpoint.mkdir()
        (checkpoint / STATE).write_bytes(json.dumps({"format": FORMAT, **asdict(info)}).encode())
        (checkpoint / CHECKSUMS).write_bytes(b"{}")


def listing_s(folder: Path, count: int) -> float:
    """Return the seconds of `python -m job.runs` over so many runs."""
    config = to_yaml(read_config(DEMO)).encode()
    for number in range(count):
        make_run(folder / f"run{number}", number, config)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "job.runs", str(folder)], capture_output=True, check=True
    )
    seconds = time.perf_counter() - began
    assert done.stdout.count(b"\n") == count + 1, done.stdout
    return seconds


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    made.add_argument("--steps", type=int, default=1_000_000, help="of the run that resumes")
    made.add_argument("--board-steps", type=int, default=500_000, help="that TensorBoard shows")
    made.add_argument("--runs", type=int, default=1000, help="that are listed")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("resumed", "4", "512", "runs"):
            (folder / part).mkdir()
        result = {
            **resume(folder / "resumed", args.steps),
            "event_files": event_files(args.board_steps),
            "consumed_bytes_per_line": {
                str(G): consumed_bytes(folder / str(G), G) for G in (4, 512)
            },
            "runs_s": listing_s(folder / "runs", args.runs),
        }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
