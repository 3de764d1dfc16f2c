"""What the stream itself costs, and whether training waits for it: `python -m benchmarks.stream`.

First it measures training's own stream (data/stream/micro_batches.py) of G = W = 8 ranks, one
group, whose loaders return made-up micro-batches at once. The ranks are threads of this process; a
step is a sleep of 0.25 s (`--step-s` more on a busy machine: CPU seconds are what counts), and a
step waits for the last rank. Every 2,048 micro-batches a dataset
ends, so that some do; in training one is much longer.

coordination_ms      CPU milliseconds per micro-batch of all that a group has once: the coordinator
                     that executes its dataset, its orders and its source; median over the run, so
                     that starts do not count
group_per_s          micro-batches that a group can be dealt per CPU second of that
micro_batches_per_s  micro-batches that 512 ranks can be dealt per CPU second of each of these
                     processes: nothing exists once for the whole run, and 512 ranks have 64 groups
loader_ms, rank_ms   CPU milliseconds per micro-batch of the loaders, and of the ranks
opening_s            CPU seconds of a dataset and its loaders until they deliver
measured             of the measured run, on the cores of this machine and beside what else it does:
                     `waiting_share`, the share of the time that ranks waited for micro-batches that
                     were not ready; `waits`, the longest ones in seconds; `ray_data_from`, the
                     first step that Ray Data loaded

Then it simulates 8, 64 and 512 ranks with these costs, on a clock of its own and with a core for
each process (benchmarks/stream_clock.py), as no machine could run 64 groups, nor tell the stream
from what else it does:

waiting_share        share of the time that ranks wait, over ten datasets' worth of steps, each of
                     2,048 micro-batches of a group: from the first step on, with the starts of all
                     datasets
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.stream_clock import Costs, Run, waits_of
from data.plan.epoch_plan import Position
from data.settings.plan import PlanConfig
from data.shards.manifest import COLUMNS, write_manifest
from data.stream import datasets
from data.stream.loading import Loaded
from data.stream.micro_batches import MicroBatchStream, ReadyStep
from data.stream.spec import StreamSpec, schedule_of
from job.on_ray.cluster import ray_session
from job.settings.cli import read_config
from job.settings.config import Config
from job.settings.paths import with_absolute_paths

DEMO = Path("job/presets/demo.yaml")
RANKS = 8
MICRO_BATCHES = 2048  # of a dataset
STEP_S = 0.25
UTTERANCES = 4096
FRAMES = 100
TOKENS = 10
LARGEST = 512

Sample = tuple[int, dict[str, float]]  # steps taken, CPU seconds by kind

KINDS = {
    "coordination": ("SplitCoordinator", "Orders", "ReadSource"),
    "loader": ("MapWorker",),
}


class MadeUpRows:
    """Loads nothing."""

    def __init__(self, spec: StreamSpec):
        """Make the arrays of a micro-batch of one utterance.

        Args:
            spec: has the sizes of the spectrogram.
        """
        cfg = spec.data
        ids = np.zeros((1, TOKENS), np.int64)
        self.arrays = {
            **dict.fromkeys(("x", "tone", "language", "token_index"), ids),
            "x_lengths": np.array([TOKENS]),
            "bert": np.zeros((1, TOKENS, 8), np.float16),
            "y": np.zeros((1, 1, FRAMES * cfg.hop_length), np.float32),
            "y_lengths": np.array([FRAMES * cfg.hop_length]),
            "spec_lengths": np.array([FRAMES]),
            "speakers": np.zeros(1, np.int64),
            "spec": np.zeros((1, cfg.filter_length // 2 + 1, FRAMES), np.float32),
        }

    def load(self, rows: np.ndarray) -> Loaded:
        """Return the same arrays for any rows."""
        return Loaded({**self.arrays, "rows": rows}) if len(rows) else Loaded({})


class Lockstep:
    """Ranks as threads, whose steps begin when all have their micro-batches."""

    def __init__(self, spec: StreamSpec, steps: int, step_s: float):
        """Begin.

        Args:
            spec: names the data.
            steps: number of steps.
            step_s: seconds of a step.
        """
        self.spec = spec
        self.steps = steps
        self.step_s = step_s
        self.barrier = threading.Barrier(RANKS)
        self.name = ""
        self.waits = np.zeros((steps, RANKS))
        self.taken = 0
        self.ray_data_from = steps

    def broadcast(self, thing: Any) -> Any:
        """Return one rank's object on all."""
        if self.barrier.wait() == 0:
            self.name = thing
        self.barrier.wait()
        return self.name

    def run(self) -> None:
        """Take all steps on all ranks."""
        ranks = [threading.Thread(target=self.work, args=(rank,)) for rank in range(RANKS)]
        for thread in ranks:
            thread.start()
        for thread in ranks:
            thread.join()

    def work(self, rank: int) -> None:
        """Take all steps on one rank."""
        stream = MicroBatchStream(
            self.spec,
            Position(),
            self.steps,
            rank,
            RANKS,
            self.broadcast,
            make_rows=MadeUpRows,
        )
        ready_at: list[float] = []
        make_ready = stream._ready

        def timed(loaded: tuple[int, Any]) -> ReadyStep:
            made = make_ready(loaded)
            ready_at.append(time.perf_counter())
            return made

        stream._ready = timed  # type: ignore[method-assign]
        for step in range(self.steps):
            asked = time.perf_counter()
            if step == 0:
                steps = iter(stream)
            (_,) = next(steps)
            self.waits[step, rank] = max(0.0, ready_at[step] - asked)
            if stream.alone_since is None:
                self.ray_data_from = min(self.ray_data_from, step)
            self.barrier.wait()
            time.sleep(self.step_s)
            if rank == 0:
                self.taken = step + 1
        steps.close()


def spec_of(cfg: Config, folder: str) -> StreamSpec:
    """Write the manifest of utterances that no shard has; return its spec."""
    rows = [
        {
            "id": f"{number:06d}",
            "key": f"{number:06d}",
            "speaker": "a",
            "language": "EN",
            "text": "",
            "norm_text": "",
            "samples": FRAMES * cfg.data.hop_length,
            "frames": FRAMES,
            "phones": TOKENS,
            "split": "train",
            "shard": "shards/none.parquet",
            "row": number,
        }
        for number in range(UTTERANCES)
    ]
    table = pa.Table.from_pylist([{n: r.get(n) for n in COLUMNS.names} for r in rows], COLUMNS)
    manifest = write_manifest(folder, {"speakers": {"a": 0}, "spectrograms": False}, table)
    plan = PlanConfig(max_frames=FRAMES, max_utterances=1)
    data = replace(cfg.data, shards=folder, plan=plan)
    return StreamSpec.of_new_run(data, manifest.digest, 1, RANKS, segment_frames=16)


def cpu_seconds() -> dict[str, float]:
    """Return the CPU seconds of Ray's processes by kind, and of this one."""
    found = {**dict.fromkeys(KINDS, 0.0), "rank": time.process_time()}
    for process in psutil.Process().children(recursive=True):
        try:
            name, spent = process.name(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        for kind, parts in KINDS.items():
            if name.startswith("ray::") and any(part in name for part in parts):
                found[kind] += spent.user + spent.system
    return found


def sampled(lockstep: Lockstep, every_s: float) -> Iterator[Sample]:
    """Yield the number of steps taken and CPU seconds by kind, every few seconds while it runs."""
    thread = threading.Thread(target=lockstep.run)
    thread.start()
    while thread.is_alive():
        yield lockstep.taken, cpu_seconds()
        thread.join(every_s)


def per_micro_batch(samples: list[Sample]) -> dict[str, list[float]]:
    """Return CPU seconds per micro-batch by kind, between every two samples.

    Between some, processes ended, whose CPU seconds are missing.

    Args:
        samples: numbers of steps taken, and CPU seconds by kind until then.
    """
    costs: dict[str, list[float]] = {kind: [] for kind in samples[0][1]}
    for (step, before), (end, after) in pairwise(samples):
        for kind, found in costs.items():
            if end > step and after[kind] >= before[kind]:
                found.append((after[kind] - before[kind]) / ((end - step) * RANKS))
    return costs


def opening_of(samples: list[Sample], delivers: int) -> float:
    """Return CPU seconds of a group's first dataset and its loaders, until it delivers a step."""
    began = next(spent for step, spent in samples if step > delivers)
    return began["coordination"] + began["loader"]


def share_of(waits: np.ndarray, step_s: float = STEP_S) -> float:
    """Return the share of the time that training waits, from its seconds before each step."""
    return float(waits.sum() / (waits.sum() + step_s * len(waits)))


def measure(cfg: Config, folder: str, steps: int, step_s: float, simulated: int) -> dict[str, Any]:
    """Return the figures.

    Args:
        cfg: configuration of a run.
        folder: where its manifest is written.
        steps: number of steps that are measured.
        step_s: seconds of each of them.
        simulated: number of steps that are simulated.
    """
    datasets.MICRO_BATCHES_PER_DATASET = MICRO_BATCHES
    spec = spec_of(cfg, folder)
    schedule_of(spec)  # as a worker does before it opens a stream
    lockstep = Lockstep(spec, steps, step_s)
    samples = list(sampled(lockstep, 2.0))
    if lockstep.ray_data_from == steps:
        raise SystemExit(
            f"Ray Data has not begun within {steps} steps: on a busy machine, let them take longer "
            "(--step-s)"
        )
    began = next(i for i, (step, _) in enumerate(samples) if step > lockstep.ray_data_from)
    found = per_micro_batch(samples[began:])
    middle = {kind: median(values) for kind, values in found.items()}
    opening = opening_of(samples, lockstep.ray_data_from)
    per_s = 1 / middle["coordination"]
    waits = lockstep.waits.max(axis=1)

    return {
        "micro_batches_per_s": per_s * LARGEST / RANKS,
        "group_per_s": per_s,
        **{f"{kind}_ms": 1e3 * cost for kind, cost in middle.items()},
        "opening_s": opening,
        "waiting_share": simulate(cfg, Costs(**found, opening=opening), simulated),
        "measured": {
            "waiting_share": share_of(waits, step_s),
            "waits": sorted(waits.round(3).tolist())[-8:],
            "ray_data_from": lockstep.ray_data_from,
            "steps": steps,
            "step_s": step_s,
        },
    }


def simulate(cfg: Config, costs: Costs, steps: int) -> dict[str, float]:
    """Return the share of the time that 8, 64 and 512 ranks wait, by their number."""
    data, per_dataset = cfg.data, MICRO_BATCHES // RANKS

    def share(groups: int) -> float:
        run = Run(groups, RANKS, data.loader_count, data.prefetch_steps, steps, per_dataset, STEP_S)
        return share_of(waits_of(run, costs))

    return {str(ranks): share(ranks // RANKS) for ranks in (8, 64, LARGEST)}


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    made.add_argument(
        "--datasets", type=int, default=10, help="so many datasets' worth of steps are simulated"
    )
    made.add_argument("--steps", type=int, default=480, help="so many steps are measured")
    made.add_argument("--step-s", type=float, default=STEP_S, help="seconds of a measured step")
    made.add_argument(
        "--loaders", type=int, default=4, help="data.loaders; its auto has 16 for eight GPUs"
    )
    made.add_argument(
        "--only-simulate",
        type=float,
        nargs=4,
        metavar=("COORDINATION_MS", "LOADER_MS", "RANK_MS", "OPENING_S"),
        help="with these costs; measures nothing, and starts no Ray",
    )
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    cfg = with_absolute_paths(read_config(DEMO))
    cfg = replace(cfg, data=replace(cfg.data, loaders=args.loaders))
    simulated = args.datasets * MICRO_BATCHES // RANKS
    if args.only_simulate:
        coordination, loader, rank, opening = args.only_simulate
        costs = Costs([coordination / 1e3], [loader / 1e3], [rank / 1e3], opening)
        result: dict[str, Any] = {"waiting_share": simulate(cfg, costs, simulated)}
    else:
        os.environ.setdefault("RAY_worker_niceness", "0")
        with tempfile.TemporaryDirectory() as folder, ray_session(cfg):
            result = measure(cfg, folder, args.steps, args.step_s, simulated)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
