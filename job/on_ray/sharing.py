"""How much of a cluster an elastic run may take, so that other jobs have room beside it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml

from job.on_ray.private import ScalingConfig, most_resources

# What `ray up` leaves on the head, and the head's `ray start --autoscaling-config` reads.
AUTOSCALING_CONFIG = "~/ray_bootstrap_config.yaml"
ROUNDING = 1e-6  # 0.29 of 100 is 29


def most_workers(config: ScalingConfig, max_share: float) -> int:
    """Return how many workers a run may have now; Ray is up.

    They are its share of those for which the cluster has room in all, whoever uses it now; at least
    the fewest of the run.

    Args:
        config: Ray Train's settings of the run.
        max_share: share of the cluster that the run may take.

    Raises:
        RayError: the cluster does not answer.
    """
    per_worker: Any = config.resources_per_worker  # Ray's type also allows what Tune searches
    room = workers_with_room(per_worker or {}, resources_to_be())
    return max(config.min_workers, min(config.max_workers, math.floor(max_share * room + ROUNDING)))


def workers_with_room(per_worker: Mapping[str, float], resources: Mapping[str, float]) -> float:
    """Return for how many workers a cluster has room.

    Args:
        per_worker: resource -> amount that each takes.
        resources: resource -> amount of the whole cluster.
    """
    taken = {name: amount for name, amount in per_worker.items() if amount}
    return min((resources.get(name, 0) // amount for name, amount in taken.items()), default=0)


def resources_to_be() -> dict[str, float]:
    """Return what the cluster has, or may have once its autoscaler has started all its nodes."""
    up, told, planned = ray.cluster_resources(), most_resources(), planned_resources()
    return {
        name: max(each.get(name, 0) for each in (up, told, planned))
        for name in {*up, *told, *planned}
    }


def planned_resources() -> dict[str, float]:
    """Return what all nodes have together that the cluster file of `ray up` allows.

    Empty elsewhere than on the head of such a cluster.
    """
    path = Path(AUTOSCALING_CONFIG).expanduser()
    if not path.exists():
        return {}
    cluster = yaml.safe_load(path.read_text(encoding="utf-8"))
    total: dict[str, float] = {}
    for of in cluster["available_node_types"].values():
        for name, amount in of.get("resources", {}).items():
            total[name] = total.get(name, 0) + amount * of.get("max_workers", 0)
    return total
