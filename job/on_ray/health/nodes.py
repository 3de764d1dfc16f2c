"""The nodes of the cluster that are up: each is asked by a task that runs there."""

import time
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from job.on_ray.health import probes
from job.on_ray.health.probes import NodeReport
from trainable.config import TrainConfig

ANSWER_WITHIN_S = 120


def alive() -> list[str]:
    """Return Ray's ids of the nodes that are up."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def reports(
    packages: tuple[str, ...], storage: str, train: TrainConfig
) -> tuple[list[NodeReport], dict[str, float]]:
    """Return the nodes' reports, and by how many seconds each clock is ahead of this one's.

    Args:
        packages: packages whose versions are reported.
        storage: folder or URI that each node writes to and reads from.
        train: `precision`, `compile`.
    """
    look: Any = ray.remote(probes.look)
    found = []
    skew = {}
    # one after another, as the nodes' tests of the storage would share its bandwidth
    for node in filter(itemgetter("Alive"), ray.nodes()):
        asked = time.time()
        here = look.options(**_on(node["NodeID"]))
        gpus = node["Resources"].get("GPU", 0)
        report = ray.get(here.remote(packages, storage, train, gpus), timeout=ANSWER_WITHIN_S)
        answered = time.time()
        found.append(report)
        # the node looked at its clock at some time in between
        skew[report.node] = max(report.time - answered, 0.0) + min(report.time - asked, 0.0)
    return found, skew


def broken_connections(nodes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of addresses (from, to) between which no connection can be made.

    Args:
        nodes: Ray's ids of the nodes.
    """
    listener = ray.remote(probes.Listener)
    listeners: list[Any] = [listener.options(**_on(node)).remote() for node in nodes]
    asked = [each.address.remote() for each in listeners]
    addresses = ray.get(asked, timeout=ANSWER_WITHIN_S)

    unreachable = ray.remote(probes.unreachable)
    tried = [unreachable.options(**_on(node)).remote(addresses) for node in nodes]
    failed = ray.get(tried, timeout=ANSWER_WITHIN_S)
    return [
        (here, there) for (here, _), found in zip(addresses, failed, strict=True) for there in found
    ]


def _on(node: str) -> dict[str, Any]:
    """Return options of a task that runs on that node, and takes none of its resources."""
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
