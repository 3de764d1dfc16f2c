"""What the trials of a sweep take of the head's memory: `python -m benchmarks.head_memory`.

It runs a sweep of the demo preset on a Ray cluster of several raylets on this machine
(tools/local_cluster.py), one worker node per trial, and adds up what each process of the head has
of the memory (PSS: pages that processes share count once, in parts). Drivers and controllers of
trials are the same whatever they train, so tiny networks tell. Loaders of data run on the head
here, as there are no data nodes, and are left out.

pss_mib      MiB, of the processes of each kind: what all have, and how many there are
per_trial    GiB of a trial: the actors of which there is one per trial
base         GiB of the rest: Ray's own processes, and the sweep's driver
fit          how many trials fit a head of `--head-gib`, of which Ray may use `--usable`
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tools.local_cluster import NODE_MARK, LocalCluster

DEMO = "job/presets/demo.yaml"
SAMPLES, EVERY_S = 6, 3.0
START_WITHIN_S = 120  # per trial: they start one after the other where cores are few
ACTOR = "ray::"  # as Ray's processes call themselves
LOADERS = ("ray::_MapWorker", "ray::MapWorker", "ray::MapBatches")  # of Ray Data, on data nodes
OPTIONS = {
    "run.name": "head",
    "train.segment_size": 4096,
    "data.plan.max_frames": 500,
    "data.loaders": 1,
    "train.micro_batches_per_step": 1,
    "train.max_steps": 100_000,
    "train.log_every_steps": 1,
    "eval.every_steps": 50_000,
    "eval.syntheses": 0,
    "scaling.num_workers": 1,
    "scaling.worker_resources": '{"trainer": 1}',
}


def kind(process: psutil.Process, driver: int) -> str:
    """Return what a process is: the class of an actor, or the name of a program."""
    if process.pid == driver:
        return "tuning.sweep"
    words = process.cmdline() or [process.name()]
    if words[0].startswith(ACTOR):
        return words[0].split(".")[0].split()[0]
    scripts = [Path(word).name for word in words if word.endswith(".py")]
    return scripts[0] if scripts else Path(words[0].split()[0]).name


def of_head(cluster: LocalCluster, driver: int) -> Iterator[psutil.Process]:
    """Yield the processes of a cluster's head, and a driver there."""
    for process in psutil.process_iter():
        try:
            if process.pid == driver or process.environ().get(NODE_MARK) == cluster.head.name:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended, or belongs to another user


def sample(cluster: LocalCluster, driver: int) -> dict[str, list[float]]:
    """Return the MiB of each process of the head: kind -> one per process."""
    found: dict[str, list[float]] = defaultdict(list)
    for process in of_head(cluster, driver):
        try:
            found[kind(process, driver)].append(process.memory_full_info().pss / 2**20)
        except psutil.NoSuchProcess:
            continue
    return found


def measured(trials: int, root: Path) -> list[dict[str, list[float]]]:
    """Return samples of the head while so many trials train.

    Args:
        trials: trials at once.
        root: folder of shards and runs.
    """
    options = OPTIONS | {"data.shards": root / "shards", "run.storage": root / "runs"}
    argv = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    argv += ["--space", "loss_weights", "--schedule", "none"]
    argv += ["--metric", "eval/mel", "--trials", str(trials), "--at-once", str(trials)]
    with LocalCluster(workers=trials, head_cpus=trials) as cluster:
        log = root / "sweep.log"
        command = [sys.executable, "-m", "tuning.sweep", "--config", DEMO, *argv]
        driver = cluster.start(command, log)
        try:
            deadline = time.monotonic() + START_WITHIN_S * trials
            while len(list((root / "runs").glob("*/runs/*/metrics.jsonl"))) < trials:
                if driver.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"no {trials} trials:\n{log.read_text(encoding='utf-8')[-3000:]}"
                    )
                time.sleep(1)
            samples = []
            for _ in range(SAMPLES):
                time.sleep(EVERY_S)
                samples.append(sample(cluster, driver.pid))
            return samples
        finally:
            driver.kill()
            driver.wait()


def figures(samples: list[dict[str, list[float]]], trials: int) -> dict[str, Any]:
    """Return the largest sample, by kinds, and what of it is a trial's."""
    largest = max(samples, key=lambda each: sum(map(sum, each.values())))
    own = {name: of for name, of in largest.items() if not name.startswith(LOADERS)}
    counts = Counter({name: len(of) for name, of in own.items()})
    of_trials = {name for name, n in counts.items() if n == trials and name.startswith(ACTOR)}
    per_trial = sum(sum(own[name]) for name in of_trials) / trials / 1024
    base = sum(sum(of) for name, of in own.items() if name not in of_trials) / 1024
    pss = {
        name: {"pss_mib": round(sum(of)), "processes": len(of), "per_trial": name in of_trials}
        for name, of in sorted(own.items(), key=lambda item: -sum(item[1]))
    }
    return {"processes": pss, "per_trial": per_trial, "base": base}


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.head_memory", description=__doc__)
    made.add_argument("--trials", type=int, default=7, help="trials at once, from 2")
    made.add_argument("--head-gib", type=float, default=16.0)
    made.add_argument("--usable", type=float, default=0.9, help="share of it that Ray may use")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    if args.trials < 2:
        made.error("--trials: two are needed to tell which processes are a trial's")
    root = Path(tempfile.mkdtemp(prefix="bvr-"))
    try:
        found = figures(measured(args.trials, root), args.trials)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    room = args.head_gib * args.usable - found["base"]
    result = {
        **found,
        "trials": args.trials,
        "head_gib": args.head_gib,
        "all": found["base"] + args.trials * found["per_trial"],
        "fit": int(room / found["per_trial"]),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
