"""All private names of Ray that this project uses; everything else takes them from here.

Only job/spot.py, which runs on nodes without the project, passes a private argument itself.

Ray may change or drop any of them in any release. Each was last checked with Ray 2.60.0, the
release that pyproject.toml pins: before the pin is raised, read this file, then run
tests/job/test_elastic.py. Nothing here imports torch.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray import ObjectRef

# Whether Ray may form clusters: without them, a local Ray stays on loopback. Ray 2.60.0
from ray._private import ray_constants

# Who warns at each local start that it asks for a token. Ray 2.60.0
from ray._private.authentication import authentication_token_setup

# The cluster's control service: which nodes are draining, which actors live. Ray 2.60.0
from ray._private.state import state as cluster_state

# The label by which an actor is placed on a node. Ray 2.60.0
from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]  # compiled

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

# The name of the list of checkpoints that Ray Train keeps in a run's folder, and the environment
# that its controller is given. Ray 2.60.0
from ray.train.v2._internal.constants import (
    CHECKPOINT_MANAGER_SNAPSHOT_FILENAME,
    get_env_vars_to_propagate,
)

# A worker's error, as its controller is told of it, that of a list of checkpoints that does not fit
# its folder, and that of workers for which there was no room in time. Ray 2.60.0
from ray.train.v2._internal.exceptions import (
    CheckpointManagerInitializationError,
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
)

# What Ray Train's controller calls when something happens to its run. Ray 2.60.0
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerGroupCallback,
)

# The book that Ray Train's controller keeps of checkpoints, and its form in a run's folder.
# Ray 2.60.0
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    CheckpointManager,
    _CheckpointManagerState,
    _TrainingResultState,
)

# What callbacks are told of their run: its name and storage. Ray 2.60.0
from ray.train.v2._internal.execution.context import TrainRunContext

# The actor that runs the workers; the one that frees what a dead one held, and how that one finds
# out that the controller is dead. Ray 2.60.0
from ray.train.v2._internal.execution.controller import (
    TrainController,
    placement_group_cleaner,
)
from ray.train.v2._internal.execution.controller import controller as controller_module
from ray.train.v2._internal.execution.controller.placement_group_cleaner import (
    PlacementGroupCleaner,
)

# The state of a controller whose run is coming to its end. Ray 2.60.0
from ray.train.v2._internal.execution.controller.state import ShuttingDownState

# The policy for failures, to be subclassed, and what it answers. Ray 2.60.0
from ray.train.v2._internal.execution.failure_handling import (
    DefaultFailurePolicy,
    FailureDecision,
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
from ray.train.v2.api.config import CheckpointConfig as RayCheckpointConfig
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2.api.result import Result

__all__ = [
    "CHECKPOINT_MANAGER_SNAPSHOT_FILENAME",
    "BaseWorkerGroup",
    "CheckpointManagerInitializationError",
    "ControllerError",
    "DataParallelTrainer",
    "ElasticPolicy",
    "ElasticScalingPolicy",
    "FailureConfig",
    "FailureDecision",
    "FixedScalingPolicy",
    "ForgivingPolicy",
    "NamedReservation",
    "NoopDecision",
    "PlacementGroupCleaner",
    "PlacementGroupCleanerCallback",
    "RayCheckpointConfig",
    "ResizeDecision",
    "Result",
    "RunConfig",
    "RunWatcher",
    "ScalingConfig",
    "ScalingDecision",
    "TailoredController",
    "TrainAutoscalingCoordinatorClient",
    "TrainRunContext",
    "TrainingFailedError",
    "TransparentController",
    "UserCallback",
    "UserExceptionWithTraceback",
    "WorkerGroupError",
    "WorkerGroupPollStatus",
    "WorkerGroupStartupTimeoutError",
    "WorkerGroupState",
    "announce_preemption",
    "cluster_state",
    "forbid_clusters",
    "get_or_create_actor_location_tracker",
    "get_or_create_autoscaling_coordinator",
    "get_or_create_stats_actor",
    "get_or_create_usage_collection_actor",
    "is_over",
    "judge_controllers_by",
    "keep_no_list_of_checkpoints",
    "list_of_checkpoints",
    "quieten_snapshots",
    "raised_by_worker",
    "start_cleaners_of",
    "start_on_loopback",
]


def start_on_loopback(
    cpus: int, folder: str | None, dashboard_port: int | None = None, **options: Any
) -> None:
    """Start a local Ray whose node has a loopback address.

    Needs the arguments `_node_ip_address` and `_temp_dir` of `ray.init`, and `logger` of
    `authentication_token_setup`. Ray 2.60.0

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


def list_of_checkpoints(told: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return a list of checkpoints as `Result.from_path` reads it.

    Needs `_CheckpointManagerState` and `_TrainingResultState`. Ray 2.60.0

    Args:
        told: name of the checkpoint -> its metrics, the latest last.
    """
    results = [
        _TrainingResultState(checkpoint_dir_name=name, metrics=dict(metrics))
        for name, metrics in told.items()
    ]
    state = _CheckpointManagerState(
        checkpoint_results=results,
        checkpoint_report_indices=list(range(len(results))),
        latest_checkpoint_result=results[-1] if results else None,
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=len(results),
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    return state.json().encode()


class NewestCheckpointAlone(CheckpointManager):
    """Ray Train's book of checkpoints, without those that somebody else removes and lists.

    Needs `_maybe_load_state_from_storage`, `_save_state_and_delete_old_checkpoints`,
    `_checkpoint_results`, `_latest_checkpoint_result` and `_checkpoint_to_report_index` of Ray's.
    Ray 2.60.0
    """

    def _maybe_load_state_from_storage(self) -> None:
        """Begin empty: what the run continues from is found in its folder."""

    def _save_state_and_delete_old_checkpoints(self) -> None:
        newest = self._latest_checkpoint_result
        assert newest is not None
        index = self._checkpoint_to_report_index[newest.checkpoint]
        self._checkpoint_results = [newest]
        self._checkpoint_to_report_index = {newest.checkpoint: index}


def keep_no_list_of_checkpoints() -> None:
    """Have controllers that are made in this process neither write a list of checkpoints nor read.

    Needs `controller.CheckpointManager`. Ray 2.60.0
    """
    controller_module.CheckpointManager = NewestCheckpointAlone  # type: ignore[misc]


def quieten_snapshots() -> None:
    """Hide that a run's list of checkpoints is read for its result, which Ray takes for a restart.

    Its words tell the user to rename a run that has just come to its good end. Needs the logger of
    Ray's book of checkpoints. Ray 2.60.0
    """
    logging.getLogger(CheckpointManager.__module__).setLevel(logging.WARNING)


class RunWatcher(ControllerCallback, ReportCallback, WorkerGroupCallback):
    """Is told by a run's controller, in whose process it lives, what happens to the run.

    Needs the hooks of Ray's callbacks, and `checkpoint` of its reports. Ray 2.60.0
    """

    def begun(self) -> None:
        """Take note that the run begins."""

    def reported(self, metrics: Mapping[str, float], checkpoint: str) -> None:
        """Take note of a report of rank 0, and the checkpoint's name; "" without one."""

    def workers_started(self, workers: int) -> None:
        """Take note that workers have started."""

    def workers_left(self) -> None:
        """Take note that the workers end."""

    def failed(self) -> None:
        """Take note that workers have failed."""

    def ended(self) -> None:
        """Take note that the run has come to its end."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Pass on that the run begins."""
        self.begun()

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """Pass on a report."""
        checkpoint = training_report.checkpoint
        self.reported(metrics[0], "" if checkpoint is None else checkpoint.path.split("/")[-1])

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Pass on that the workers have started."""
        self.workers_started(len(worker_group))

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        """Pass on errors, unless the workers have left because of a notice."""
        errors = worker_group_status.errors.values()
        if any(not getattr(error, "preempted", False) for error in errors):
            self.failed()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """Pass on that the workers end."""
        self.workers_left()

    async def before_controller_shutdown(self) -> None:
        """Pass on that the run has come to its end."""
        self.ended()


class NamedReservation(ScalingPolicy):
    """A scaling policy whose reservation has a name of our choice.

    Needs `_requester_id`, `_coordinator_client`, `_send_resource_request`,
    `_cancel_resource_request` and `_autoscaling_coordinator` of Ray's policies. Ray 2.60.0
    """

    def is_ours(self) -> bool:
        """Tell whether what is reserved under that name is this policy's, to be given back."""
        return True

    def _cancel_resource_request(self) -> None:
        if self.is_ours():
            super()._cancel_resource_request()

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


class ForgivingPolicy(DefaultFailurePolicy):
    """Ray Train's policy for failures, which can forget those that it has counted.

    Needs `_worker_group_failures`, `_controller_failures` and `_preemption_failures` of Ray's
    policy. Ray 2.60.0
    """

    def forget(self) -> None:
        """Count from zero again."""
        self._worker_group_failures = 0
        self._controller_failures = 0
        self._preemption_failures = 0


class TransparentController(TrainController):
    """Ray Train's controller, with a view of its state, workers and policies.

    Needs `_worker_group`, `_failure_policy` and `_scaling_policy` of Ray's controller, and
    `_worker_group_state` of its group. Ray 2.60.0
    """

    @property
    def workers(self) -> WorkerGroupState | None:
        """The workers; None if there are none now."""
        group = self._worker_group
        return None if group is None else group._worker_group_state

    @property
    def has_ended(self) -> bool:
        """Whether the run has come to its end, good or bad."""
        return self.get_state().is_terminal()

    @property
    def is_ending(self) -> bool:
        """Whether the run comes to its end without another start of the workers, or has ended."""
        return self.has_ended or isinstance(self.get_state(), ShuttingDownState)

    @property
    def failure_policy(self) -> Any:
        """What decides whether the workers are started again after a failure."""
        return self._failure_policy

    @property
    def scaling_policy(self) -> Any:
        """What decides how many workers there are, and reserves resources for them."""
        return self._scaling_policy


def raised_by_worker(failure: Exception) -> BaseException:
    """Return the error that a worker has raised, from what its controller was told.

    Needs `_base_exc` of Ray Train's wrapper. Ray 2.60.0
    """
    return failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure


def is_over(job: str) -> bool:
    """Tell whether the driver of a job has ended, in whatever way.

    Needs `job_table` of the control service's state. Ray 2.60.0

    Args:
        job: Ray's id of the job.
    """
    return any(each["JobID"] == job and each["IsDead"] for each in cluster_state.job_table())


class TailoredController(DataParallelTrainer):
    """A trainer that may change its controller, and how it waits for it.

    Needs `_initialize_and_run_controller` of Ray's trainers. This one starts the controller as
    Ray's own does, but leaves the signals to `followed`: Ray's would end the workers at once.
    Ray 2.60.0
    """

    controller_class: ClassVar[type] = TrainController
    controller_options: ClassVar[dict[str, Any]] = {}

    def tailored(self, controller: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the controller, from those that Ray Train made."""
        return controller

    def followed(self, controller: Any) -> Any:
        """Return the result of a controller that was started, once it has one."""
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())

    def lifetime(self) -> str | None:
        """Return `detached` if the controller is to live on when this process ends."""
        return None

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        env = get_env_vars_to_propagate()
        env.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")
        here = {RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        options: dict[str, Any] = {
            "num_cpus": 0,
            "label_selector": here,
            "runtime_env": {"env_vars": env},
            "lifetime": self.lifetime(),
            **self.controller_options,
        }
        started: Any = ray.remote(**options)(self.controller_class)
        return self.followed(started.remote(**self.tailored(controller)))
