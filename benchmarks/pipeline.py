"""From shards to collated batches: `python -m benchmarks.pipeline [--shards FOLDER]`.

It measures utterances/s of the training's own stream (Ray Data) beside a torch DataLoader that
loads the same micro-batches of the same files with the same work (read, verify, decode,
spectrogram, collate) in as many processes. Both run in turn, three times; the start of neither is
counted. Without --shards the demo corpus is prepared first.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.corpus.prepare import prepare
from data.plan.epoch_plan import Position
from data.plan.schedule import Schedule
from data.settings.plan import PlanConfig
from data.shards.manifest import read_manifest
from data.stream.collate import TtsBatch, to_batch
from data.stream.collectives import alone
from data.stream.loading import RowLoader, row_loader
from data.stream.micro_batches import MicroBatchStream
from data.stream.spec import StreamSpec, schedule_of
from job.on_ray.cluster import ray_session
from job.settings.cli import read_config
from job.settings.config import Config
from job.settings.paths import with_absolute_paths

DEMO = Path("job/presets/demo.yaml")
BASE = Path("job/presets/base.yaml")
STEPS = 4096  # more than either completes
WARM_UP = 32  # micro-batches until the loaders run
START_STEP_S = 0.25  # of a step while Ray Data starts


def rows_of(schedule: Schedule) -> Iterator[np.ndarray]:
    """Yield the rows of each micro-batch of the first STEPS steps."""
    position = Position()
    for _ in range(STEPS):
        plan = schedule.plan(position.epoch)
        for slot in range(schedule.cut.micro_batches_per_step):
            yield plan.micro_batch(position.epoch_step, slot)
        position = schedule.after(position)


class MicroBatches(Dataset):
    """The peer: micro-batch i of the plan, loaded in a DataLoader's process."""

    def __init__(self, spec: StreamSpec):
        self.spec = spec
        self.rows = list(rows_of(schedule_of(spec)))
        self.loader: RowLoader | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        if self.loader is None:
            torch.set_num_threads(1)
            self.loader = row_loader(self.spec)
        return self.loader.load(self.rows[i]).arrays


def ours(spec: StreamSpec) -> Iterator[TtsBatch]:
    """Yield the batches of the training's stream for one worker, from where Ray Data loads them."""
    stream = MicroBatchStream(spec, Position(), STEPS, 0, 1, alone)
    for micro_batches in stream:
        if stream.alone_since is None:
            for one in micro_batches:
                yield one.batch
        else:
            time.sleep(START_STEP_S)


def as_they_are(arrays: Any) -> Any:
    """Return a micro-batch as its process made it."""
    return arrays


def dataloader(spec: StreamSpec, processes: int) -> Iterator[TtsBatch]:
    """Yield the batches of the peer's stream."""
    loader = DataLoader(
        MicroBatches(spec),
        batch_size=None,
        shuffle=False,
        num_workers=processes,
        prefetch_factor=4,
        collate_fn=as_they_are,
        multiprocessing_context="spawn",  # Ray's connections do not outlive a fork
    )
    for arrays in loader:
        yield to_batch(arrays)


def utterances_per_s(stream: Iterator[TtsBatch], seconds: float) -> float:
    """Return how fast a stream yields utterances, after its start."""
    for _ in range(WARM_UP):
        next(stream)
    begin = time.perf_counter()
    count = 0
    while (elapsed := time.perf_counter() - begin) < seconds:
        count += len(next(stream).rows)
    return count / elapsed


def config(shards: str, loaders: int, plan: PlanConfig) -> Config:
    """Return the demo's data, cut by another plan: its own micro-batches are nearly empty."""
    cfg = read_config(DEMO)
    data = replace(cfg.data, shards=shards, plan=plan, loaders=loaders)
    return with_absolute_paths(replace(cfg, data=data))


def measure(cfg: Config, seconds: float, processes: int) -> dict[str, float]:
    """Return utterances/s of both streams, and the ratio; medians of three.

    Args:
        cfg: the configuration, whose shards exist.
        seconds: seconds of each measurement.
        processes: loaders of the peer.
    """
    spec = StreamSpec.of_new_run(
        cfg.data,
        read_manifest(cfg.data.shards).digest,
        cfg.train.seed,
        cfg.train.micro_batches_per_step,
        segment_frames=16,
    )
    rates: dict[str, list[float]] = {"ours": [], "dataloader": []}
    for _ in range(3):
        rates["ours"].append(utterances_per_s(ours(spec), seconds))
        rates["dataloader"].append(utterances_per_s(dataloader(spec, processes), seconds))
    ratios = [a / b for a, b in zip(rates["ours"], rates["dataloader"], strict=True)]
    return {name: median(values) for name, values in rates.items()} | {"ratio": median(ratios)}


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    made.add_argument("--shards", help="prepared shards; default: the demo corpus, prepared here")
    made.add_argument("--seconds", type=float, default=20, help="length of a measurement")
    plan = read_config(BASE).data.plan
    made.add_argument(
        "--max-frames", type=int, default=plan.max_frames, help="of a micro-batch; the full model's"
    )
    made.add_argument("--max-utterances", type=int, default=plan.max_utterances, help="likewise")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    processes = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(plan, max_frames=args.max_frames, max_utterances=args.max_utterances)
        cfg = config(args.shards or folder, processes, plan)
        with ray_session(cfg):
            if not args.shards:
                prepare(cfg.data)
            result = measure(cfg, args.seconds, processes)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
