"""How long a run stands still when nodes go and come: `python -m benchmarks.recovery`.

It trains the demo preset, elastic on one or two workers, on a Ray cluster of several raylets on
this machine (tools/local_cluster.py: if possible, nodes have network namespaces, and a killed
node's network goes first). For each event it prints medians of:

seconds       from the event to the end of the next global step on the workers started after it
steps_redone  global steps that had been done before the event and are done again
ray_seconds   of these seconds, what passes outside our code: noticing, placing and starting
              workers, the imports

A kill is SIGKILL of a whole node; a drain is `ray drain-node` with a deadline of 60 s, counted from
its acceptance; a join counts from the moment that the new node is part of the cluster.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import time
from typing import Any

from tools.cluster_run import ClusterRun
from tools.local_cluster import LocalCluster

COMMIT_INTERVAL = 5
STEPS_BETWEEN = 7  # more than a commit interval, and not a multiple of it


def kill(cluster: LocalCluster) -> float:
    """Kill a node; return when."""
    begin = time()
    cluster.kill_node(cluster.nodes[-1])
    return begin


def drain(cluster: LocalCluster) -> float:
    """Announce that a node goes; return when that was accepted."""
    cluster.drain_node(cluster.nodes[0], deadline_s=60)
    return time()


def join(cluster: LocalCluster) -> float:
    """Add a node; return when it had joined."""
    cluster.add_node()
    return time()


def measure(
    happen: Callable[[LocalCluster], float], cluster: LocalCluster, run: ClusterRun
) -> dict[str, float]:
    """Let something happen, and return how the run continued with another number of workers.

    Args:
        happen: kill, drain or join.
        cluster: cluster that the run is on.
        run: run that is disturbed.
    """
    run.wait_for(run.last_step() + STEPS_BETWEEN)
    begin = happen(cluster)
    run.wait_for_workers(2 if happen is join else 1)

    events = run.events()
    start = next(e for e in events if e.kind == "resume" and e.time > begin)
    first = next(e for e in events if e.kind == "step" and e.time > start.time)
    before = [e for e in events if e.time < start.time]
    done = max(e.step for e in before if e.kind == "step")
    loop = max(e.time for e in events if e.kind == "start" and e.time < start.time)
    ended = max((e.time for e in before if e.kind == "saved" and e.time > begin), default=begin)
    return {
        "seconds": first.time - begin,
        "steps_redone": done - start.step,
        "ray_seconds": loop - ended,
    }


EVENTS = {"kill": kill, "drain": drain, "join": join}


OPTIONS = {
    "scaling.num_workers": "[1, 2]",
    "train.max_steps": 100_000,
    "eval.every_steps": 100_000,
    "train.checkpoint.every_steps": COMMIT_INTERVAL,
    "scaling.max_failures": -1,
}


def measure_all(root: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Return the figures of each event: name -> one entry per repeat; joins have twice as many.

    Args:
        root: folder of shards and runs.
        repeats: how often each event happens.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in EVENTS}
    with (
        LocalCluster(workers=2) as cluster,
        ClusterRun(cluster, root, "recovery", OPTIONS) as run,
    ):
        run.wait_for_workers(2)
        for name in ("kill", "join", "drain", "join") * repeats:
            figures = measure(EVENTS[name], cluster, run)
            found[name].append(figures)
            print(name, {key: round(value, 1) for key, value in figures.items()}, flush=True)
            if name == "drain":
                cluster.kill_node(cluster.nodes[0])
    return found


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bvr-"))
    try:
        found = measure_all(root, args.repeats)
    finally:
        shutil.rmtree(root, ignore_errors=True)

    result: dict[str, Any] = {
        name: {key: median(figures[key] for figures in each) for key in each[0]}
        for name, each in found.items()
    }
    result["commit_interval"] = COMMIT_INTERVAL
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
