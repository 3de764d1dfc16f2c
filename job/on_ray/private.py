"""All private names of Ray that this project uses; everything else takes them from here.

Only job/spot.py, which runs on nodes without the project, passes a private argument itself.

Ray may change or drop any of them in any release. Each was last checked with Ray 2.60.0, the
release that pyproject.toml pins: before the pin is raised, read this file, then run
tests/job/test_elastic.py. Nothing here imports torch.
"""

import os
from typing import Any

import ray
from ray import ObjectRef

# Whether Ray may form clusters: without them, a local Ray stays on loopback. Ray 2.60.0
from ray._private import ray_constants

# The cluster's control service: which nodes are draining, which actors live. Ray 2.60.0
from ray._private.state import state as cluster_state

# The four actors that Ray Data never ends, to be placed where they block no node. Ray 2.60.0
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.data._internal.execution.node_trackers import get_or_create_actor_location_tracker
from ray.data._internal.stats import get_or_create_stats_actor
from ray.data._internal.usage.actor import get_or_create_usage_collection_actor

# The workers, to do something on each before their process group is made. Ray 2.60.0
from ray.train._internal.base_worker_group import BaseWorkerGroup

# What starts the actor that frees the resources of a dead controller. Ray 2.60.0
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

# The name of the list of checkpoints that Ray Train keeps in a run's folder. Ray 2.60.0
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

# What callbacks are told of their run: its name and storage. Ray 2.60.0
from ray.train.v2._internal.execution.context import TrainRunContext

# That actor itself, and how it finds out that the controller is dead. Ray 2.60.0
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.controller.placement_group_cleaner import (
    PlacementGroupCleaner,
)

# The policies for the number of workers, to be subclassed, and what they answer. Ray 2.60.0
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)

# Who reserves the workers' resources, under a name. Ray 2.60.0
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)

# What a policy is shown of the running workers. Ray 2.60.0
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState

# Public as ray.train.NAME at run time, where mypy sees the classes of Train V1. Ray 2.60.0
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

__all__ = [
    "CHECKPOINT_MANAGER_SNAPSHOT_FILENAME",
    "BaseWorkerGroup",
    "DataParallelTrainer",
    "ElasticPolicy",
    "ElasticScalingPolicy",
    "FailureConfig",
    "FixedScalingPolicy",
    "NamedReservation",
    "NoopDecision",
    "PlacementGroupCleaner",
    "PlacementGroupCleanerCallback",
    "ResizeDecision",
    "RunConfig",
    "ScalingConfig",
    "ScalingDecision",
    "TailoredController",
    "TrainAutoscalingCoordinatorClient",
    "TrainRunContext",
    "UserCallback",
    "WorkerGroupPollStatus",
    "WorkerGroupState",
    "announce_preemption",
    "cluster_state",
    "forbid_clusters",
    "get_or_create_actor_location_tracker",
    "get_or_create_autoscaling_coordinator",
    "get_or_create_stats_actor",
    "get_or_create_usage_collection_actor",
    "judge_controllers_by",
    "start_cleaners_of",
    "start_on_loopback",
]


def start_on_loopback(cpus: int, folder: str | None, **options: Any) -> None:
    """Start a local Ray whose node has a loopback address.

    Needs the arguments `_node_ip_address` and `_temp_dir` of `ray.init`. Ray 2.60.0

    Args:
        cpus: logical CPUs.
        folder: temporary folder of this Ray; None: Ray's own choice.
        **options: further arguments of `ray.init`.
    """
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        **options,
    )


def forbid_clusters() -> None:
    """Have the local Ray that is started next keep its loopback address.

    Its processes read the switch from the environment; this process has read it already.
    Needs `ray_constants.ENABLE_RAY_CLUSTER`. Ray 2.60.0
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def announce_preemption(workers: WorkerGroupState, notice: Any) -> None:
    """Give the workers the notice that a node's preemption would give them.

    Needs `mark_preempt` of Ray Train's workers. Ray 2.60.0
    """
    for worker in workers.workers:
        worker.actor.mark_preempt.remote(notice)


def start_cleaners_of(cls: type[PlacementGroupCleaner]) -> None:
    """Have `PlacementGroupCleanerCallback` start actors of this class, in this process.

    Needs `placement_group_callback.PlacementGroupCleaner`. Ray 2.60.0
    """
    placement_group_callback.PlacementGroupCleaner = cls  # type: ignore[misc]


def judge_controllers_by(is_alive: Any) -> None:
    """Have cleaners ask this function whether a controller lives, in this process.

    Needs `placement_group_cleaner.is_actor_alive`. Ray 2.60.0

    Args:
        is_alive: (actor id, timeout in seconds) -> whether the actor lives.
    """
    placement_group_cleaner.is_actor_alive = is_alive


class NamedReservation(ScalingPolicy):
    """A scaling policy whose reservation has a name of our choice.

    Needs `_requester_id`, `_coordinator_client`, `_send_resource_request` and
    `_autoscaling_coordinator` of Ray's policies. Ray 2.60.0
    """

    def reserve_as(self, requester: str) -> None:
        """Reserve the workers' resources under a name."""
        self._requester_id = requester
        self._coordinator_client = TrainAutoscalingCoordinatorClient(requester)
        self._send_resource_request()

    def ask_what_is_reserved(self) -> ObjectRef:
        """Ask the cluster what it holds for this reservation now: node id -> resource -> amount."""
        coordinator = self._autoscaling_coordinator
        return coordinator.get_reserved_resources.remote(self._requester_id, recompute=True)


class ElasticPolicy(ElasticScalingPolicy):
    """Ray Train's elastic policy, with its view of the cluster to be overridden.

    Needs `_get_reserved_resources` of Ray's policy. Ray 2.60.0
    """

    def reserved_resources(self) -> dict[str, dict[str, float]] | None:
        """Return what each node holds for the workers; None where that is unknown."""
        return super()._get_reserved_resources()

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        return self.reserved_resources()


class TailoredController(DataParallelTrainer):
    """A trainer that may change what its controller is started with.

    Needs `_initialize_and_run_controller` of Ray's trainers. Ray 2.60.0
    """

    def tailored(self, controller: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the controller, from those that Ray Train made."""
        return controller

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        return super()._initialize_and_run_controller(**self.tailored(controller))
