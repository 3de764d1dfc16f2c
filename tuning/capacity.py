"""How many trials a cluster can hold at once, so that none waits for what another one keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import ray

from job.on_ray.cluster import use_gpu
from job.on_ray.training import resources_per_worker, settled
from job.settings.config import Config

Bundle = Mapping[str, float]  # resource -> amount, of one process
HEAD = "node:__internal_head__"  # Ray's resource of the head node, of which there is 1
MOST = 16  # trials at once; with more, too little of the head would stay free for Ray's own actors
# Of the head: Ray's processes, the sweep's driver and as much again; a trial's processes
# (benchmarks.head_memory).
BASE_BYTES, TRIAL_BYTES = 3 * 2**30, int(1.4 * 2**30)


def shared_out(cfg: Config, at_once: int | None = None) -> tuple[Config, int]:
    """Return the settled configuration of each trial, and how many trials run at once.

    Where data.loaders is `auto`, trials come first: each has the loaders that a run alone would
    have, or as many fewer as leave room for the others.

    Args:
        cfg: the configuration that the trials start from.
        at_once: trials at once; None: as many as the cluster has room for.

    Raises:
        ValueError: not even one fits.
    """
    alone = settled(cfg)
    counts = range(cfg.data.loader_count, alone.data.loader_count + 1)
    ways = [replace(alone, data=replace(alone.data, loaders=count)) for count in counts]
    at_once = min(at_once, MOST) if at_once else trials_at_once(ways[0])

    _, workers = cfg.scaling.bounds
    nodes = _nodes()
    fitting = [way for way in ways if capacity(nodes, bundles(way, workers)) >= at_once]
    # where not even the fewest fit, the cluster is to grow
    return (fitting or ways)[-1], at_once


def _nodes() -> list[Bundle]:
    """Return what each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def trials_at_once(cfg: Config) -> int:
    """Return how many trials of this configuration the cluster can hold with all their workers.

    An elastic trial counts with the most workers that it may have: it would take them from the
    others' loaders, and then each would wait for the other.

    Raises:
        ValueError: not even one fits; names what it needs.
    """
    nodes = _nodes()
    few, many = cfg.scaling.bounds
    # a cluster too small for the most workers may still hold one trial with fewer
    found = capacity(nodes, bundles(cfg, many)) or min(capacity(nodes, bundles(cfg, few)), 1)
    if not found:
        worker = resources_per_worker(cfg, use_gpu(cfg))
        raise ValueError(
            f"the cluster has no room for a trial: it needs scaling.num_workers {few} times "
            f"{worker} and data.loaders {cfg.data.loader_count} CPUs. Lower them, or give "
            "--at-once if the cluster grows by itself"
        )
    return min(found, MOST, by_memory(nodes))


def by_memory(nodes: Sequence[Bundle]) -> int:
    """Return how many trials have room in the head's memory: their drivers live there; at least 1.

    Args:
        nodes: what each node has.
    """
    # a head's object store holds next to nothing
    memory = [
        node["memory"] + node.get("object_store_memory", 0)
        for node in nodes
        if HEAD in node and "memory" in node
    ]
    return max(1, int((memory[0] - BASE_BYTES) // TRIAL_BYTES)) if memory else MOST


def bundles(cfg: Config, workers: int) -> list[Bundle]:
    """Return what a trial takes: its workers, and its loaders of one CPU each."""
    worker = resources_per_worker(cfg, use_gpu(cfg))
    return [*[worker] * workers, *[{"CPU": 1.0}] * cfg.data.loader_count]


def capacity(nodes: Sequence[Bundle], needed: Sequence[Bundle]) -> int:
    """Return how often a set of bundles fits on nodes; a bundle does not spread over several.

    Args:
        nodes: what each node has.
        needed: the set of bundles.

    Raises:
        ValueError: the bundles take nothing.
    """
    if not any(amount for bundle in needed for amount in bundle.values()):
        raise ValueError("scaling.cpus_per_worker is 0 and data.loaders too: give --at-once")
    free = [dict(node) for node in nodes]
    count = 0
    while all(_place(free, bundle) for bundle in needed):
        count += 1
    return count


def _place(free: list[dict[str, float]], bundle: Bundle) -> bool:
    """Take a bundle from the first node that has it; return whether one has."""
    for node in free:
        if all(node.get(name, 0) >= amount for name, amount in bundle.items()):
            for name, amount in bundle.items():
                node[name] = node.get(name, 0) - amount
            return True
    return False


def driver_resources(at_once: int) -> dict[str, float]:
    """Return what each trial's driver reserves: a share of the head node, and no CPU.

    By the shares no more trials run than have room. The head is also where drivers belong: it does
    not go when a spot machine is reclaimed. The share lies between what would let one more run and
    what would leave nothing of the head to Ray's own actors, which take 0.001 each.

    Args:
        at_once: trials at once, 1 to MOST.
    """
    assert 1 <= at_once <= MOST
    share = (1 / at_once + 1 / (at_once + 1)) / 2
    return {HEAD: round(share, 4)}  # Ray counts in ten-thousandths
