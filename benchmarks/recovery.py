"""How long a run stands still when nodes go and come: `python -m benchmarks.recovery [--repeats 3] [--json FILE]`.

Trains the demo preset, elastic on one or two workers, on a Ray cluster of several raylets on this
machine (tools/local_cluster.py: where it can be, nodes have network namespaces, and a killed node's
network goes first). For each event it prints medians of:

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

from tools.cluster_run import ClusterRun
from tools.local_cluster import LocalCluster

COMMIT_INTERVAL = 5
STEPS_BETWEEN = 7  # more than a commit interval, and not a multiple of it


def kill(cluster: LocalCluster) -> float:
    """Kill a node; returns when."""
    begin = time()
    cluster.kill_node(cluster.nodes[-1])
    return begin


def drain(cluster: LocalCluster) -> float:
    """Announce that a node goes; returns when that was accepted."""
    cluster.drain_node(cluster.nodes[0], deadline_s=60)
    return time()


def join(cluster: LocalCluster) -> float:
    """Add a node; returns when it had joined."""
    cluster.add_node()
    return time()


def measure(
    happen: Callable[[LocalCluster], float], cluster: LocalCluster, run: ClusterRun
) -> dict[str, float]:
    """Let something happen, and see when the run goes on with another number of workers."""
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


def main() -> None:
    """The command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bvr-"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in EVENTS}
    try:
        with LocalCluster(workers=2) as cluster:
            run = ClusterRun(
                cluster,
                root,
                "recovery",
                {
                    "scaling.num_workers": "[1, 2]",
                    "train.max_steps": 100_000,
                    "eval.every_steps": 100_000,
                    "train.checkpoint.every_steps": COMMIT_INTERVAL,
                    "scaling.max_failures": -1,
                },
            )
            with run:
                run.wait_for_workers(2)
                for _ in range(args.repeats):
                    for name in ("kill", "join", "drain", "join"):
                        found[name].append(measure(EVENTS[name], cluster, run))
                        print(
                            name,
                            {key: round(value, 1) for key, value in found[name][-1].items()},
                            flush=True,
                        )
                        if name == "drain":
                            cluster.kill_node(cluster.nodes[0])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    medians = {
        name: {key: median(x[key] for x in each) for key in each[0]} for name, each in found.items()
    }
    result = {**medians, "commit_interval": COMMIT_INTERVAL}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
