"""Starting a Ray, and asking its control service."""

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

import ray

# Whether Ray may form clusters: without them, a local Ray stays on loopback.
from ray._private import ray_constants

# Who warns at each local start that it asks for a token.
from ray._private.authentication import authentication_token_setup

# The cluster's control service: which nodes are draining, which actors live.
from ray._private.state import state as cluster_state

from job.on_ray.private.releases import needs, release

needs(ray_constants, "ENABLE_RAY_CLUSTERS_ENV_VAR", "ENABLE_RAY_CLUSTER")
needs(authentication_token_setup, "logger")
needs(
    type(cluster_state),
    "actor_table",
    "get_draining_nodes",
    "get_max_resources_from_cluster_config",
    "job_table",
)

# The actors that Ray Data never ends: module -> what makes one on the node that asks for it.
DATA_ACTORS = {
    "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator": (
        "get_or_create_autoscaling_coordinator"
    ),
    "ray.data._internal.execution.node_trackers": "get_or_create_actor_location_tracker",
    "ray.data._internal.stats": "get_or_create_stats_actor",
}
if release() >= (2, 60):  # earlier ones have no such actor
    DATA_ACTORS["ray.data._internal.usage.actor"] = "get_or_create_usage_collection_actor"


def start_on_loopback(
    cpus: int, folder: str | None, dashboard_port: int | None = None, **options: Any
) -> None:
    """Start a local Ray whose node has a loopback address.

    Needs the arguments `_node_ip_address` and `_temp_dir` of `ray.init`.

    Args:
        cpus: logical CPUs.
        folder: temporary folder of this Ray; None: Ray's own choice.
        dashboard_port: port of its dashboard; None: it has none.
        **options: further arguments of `ray.init`.
    """
    # it is as it should be
    authentication_token_setup.logger.setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=dashboard_port is not None,
        dashboard_port=dashboard_port,
        log_to_driver=False,
        logging_level=logging.WARNING,  # that it has started, commands tell themselves
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        **options,
    )


def forbid_clusters() -> None:
    """Have the local Ray that is started next keep its loopback address.

    Its processes read the switch from the environment; this process has read it already."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def is_over(job: str) -> bool:
    """Tell whether the driver of a job has ended, in whatever way.

    Args:
        job: Ray's id of the job.
    """
    return any(each["JobID"] == job and each["IsDead"] for each in cluster_state.job_table())


def create_data_actors() -> None:
    """Create the actors that Ray Data never ends on this node."""
    for module, name in DATA_ACTORS.items():
        getattr(importlib.import_module(module), name)()


def most_resources() -> Mapping[str, float]:
    """Return the most that the cluster's autoscaler may start; empty if the cluster has none."""
    return cluster_state.get_max_resources_from_cluster_config() or {}
