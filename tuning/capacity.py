"""How many trials a cluster can hold at once, so that none waits for what another one keeps."""

from collections.abc import Mapping, Sequence

import ray

from job.on_ray.cluster import use_gpu
from job.settings.config import Config
from job.train import resources_per_worker

Bundle = Mapping[str, float]  # resource -> amount, of one process
HEAD = "node:__internal_head__"  # Ray's resource of the head node, of which there is 1
MOST = 16  # trials at once; with more, too little of the head would stay free for Ray's own actors


def trials_at_once(cfg: Config) -> int:
    """How many trials of this configuration the cluster can hold beside each other, each with all its workers.

    An elastic trial counts with the most workers that it may have: it would take them from the
    others' loaders, and then each would wait for the other.

    Raises:
        ValueError: not even one fits; names what it needs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    few, many = cfg.scaling.bounds
    found = capacity(nodes, bundles(cfg, many)) or min(capacity(nodes, bundles(cfg, few)), 1)
    if not found:
        worker = resources_per_worker(cfg, use_gpu(cfg))
        raise ValueError(
            f"the cluster has no room for a trial: it needs scaling.num_workers {few} times {worker} and data.loaders "
            f"{cfg.data.loaders} CPUs. Lower them, or give --at_once where the cluster grows by itself"
        )
    return min(found, MOST)


def bundles(cfg: Config, workers: int) -> list[Bundle]:
    """What a trial takes: its workers, and its loaders of one CPU each."""
    return [
        *[resources_per_worker(cfg, use_gpu(cfg))] * workers,
        *[{"CPU": 1.0}] * cfg.data.loaders,
    ]


def capacity(nodes: Sequence[Bundle], needed: Sequence[Bundle]) -> int:
    """How often a set of bundles fits on nodes; a bundle does not spread over several."""
    if not any(amount for bundle in needed for amount in bundle.values()):
        raise ValueError("scaling.cpus_per_worker is 0 and data.loaders too: give --at_once")
    free, count = [dict(node) for node in nodes], 0
    while all(_place(free, bundle) for bundle in needed):
        count += 1
    return count


def _place(free: list[dict[str, float]], bundle: Bundle) -> bool:
    """Take a bundle from the first node that has it."""
    for node in free:
        if all(node.get(name, 0) >= amount for name, amount in bundle.items()):
            for name, amount in bundle.items():
                node[name] = node.get(name, 0) - amount
            return True
    return False


def driver_resources(at_once: int) -> dict[str, float]:
    """What each trial's driver reserves: no CPU, but a share of the head node, so that no more run than have room.

    The head is also where they belong: it does not go when a spot machine is reclaimed. The share
    lies between what would let one more run and what would leave nothing of the head to Ray's own
    actors, which take 0.001 each.
    """
    assert 1 <= at_once <= MOST
    return {HEAD: round((1 / at_once + 1 / (at_once + 1)) / 2, 4)}  # Ray counts in ten-thousandths
