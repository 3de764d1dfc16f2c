"""Where a command runs: the cluster that it was submitted to, or a Ray of its own on this machine."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator

import ray
from ray._private import ray_constants
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.data._internal.execution.node_trackers import get_or_create_actor_location_tracker
from ray.data._internal.stats import get_or_create_stats_actor
from ray.data._internal.usage.actor import get_or_create_usage_collection_actor

from job.settings.config import Config


def on_cluster() -> bool:
    """Whether this command runs on a cluster that was there before it."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def ray_session(cfg: Config) -> Iterator[None]:
    """Connect to the cluster of RAY_ADDRESS (`ray job submit` sets it), or start a local Ray for this command.

    A local one listens on loopback only and has logical CPUs for all workers and for the data
    pipeline, whatever the machine has, so that the same configuration runs anywhere.

    Raises:
        ValueError: on Windows, which Ray Train's process groups do not support.
    """
    if sys.platform == "win32":
        raise ValueError("Windows is not supported: use Linux, or WSL 2")
    if ray.is_initialized():
        yield
        return
    if on_cluster():
        ray.init()
        keep_data_actors_here()
    else:
        _, workers = cfg.scaling.bounds
        cpus = max(
            os.cpu_count() or 1, math.ceil(workers * cfg.scaling.cpus_per_worker) + cfg.data.loaders
        )
        os.environ.setdefault("RAY_worker_niceness", "0")
        listen_on_loopback_only()
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=os.environ.get("BERT_VITS2_RAY_TMP"),
        )
    try:
        yield
    finally:
        ray.shutdown()


def keep_data_actors_here() -> None:
    """Make the actors that Ray Data keeps for good on this node, the head's as a rule.

    Ray Data makes each on the node that first asks for it. That would be a worker's, as the workers
    run the datasets, and a GPU node on which an actor lives is never idle: the autoscaler would
    leave it running after the job.
    """
    get_or_create_autoscaling_coordinator()
    get_or_create_stats_actor()
    get_or_create_usage_collection_actor()
    get_or_create_actor_location_tracker()


def listen_on_loopback_only() -> None:
    """Have a local Ray, and the workers' process groups, open no port to the network.

    Ray replaces the loopback address by the machine's own where clusters are enabled, as they are
    on Linux. The switch is Ray's for Windows and macOS; its processes read it from the environment,
    this one has read it already.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")


def use_gpu(cfg: Config) -> bool:
    """Whether the workers take a GPU each.

    On a cluster scaling.device cuda is taken at its word: its autoscaler may start GPU nodes from
    none, and Ray does not tell what it could start.

    Raises:
        ValueError: scaling.device is cuda, and this machine has no GPU.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    if cfg.scaling.device == "cuda" and not gpus:
        if not on_cluster():
            raise ValueError(
                "scaling.device is cuda, but this machine has no GPU: set it to auto or cpu"
            )
        print(
            "no GPU is up yet: waits until the autoscaler has started one (`ray status` tells what it does)"
        )
    return cfg.scaling.device == "cuda" or (cfg.scaling.device == "auto" and gpus > 0)
