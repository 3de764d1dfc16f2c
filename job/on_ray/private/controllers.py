"""Ray Train's controller, the actor that runs the workers, and the trainer that starts it."""

from typing import Any, ClassVar

import ray

# The label by which an actor is placed on a node.
from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]  # compiled

# The environment that the controller is given.
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController

# The state of a controller whose run is coming to its end.
from ray.train.v2._internal.execution.controller.state import ShuttingDownState

# The workers, and one of them.
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupState
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

# Public as ray.train.NAME at run time, where mypy sees the class of Train V1.
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from job.on_ray.private.releases import needs

needs(
    TrainController,
    "_failure_policy",
    "_scaling_policy",
    "_worker_group",
    "get_result",
    "get_state",
    "run",
)
needs(WorkerGroup, "_worker_group_state")
needs(RayTrainWorker, "mark_preempt")
needs(DataParallelTrainer, "_initialize_and_run_controller")


def announce_preemption(workers: WorkerGroupState, notice: Any) -> None:
    """Give the workers the notice that a node's preemption would give them."""
    for worker in workers.workers:
        worker.actor.mark_preempt.remote(notice)


class TransparentController(TrainController):
    """Ray Train's controller, with a view of its state, workers and policies."""

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


class TailoredController(DataParallelTrainer):
    """A trainer that may change its controller, and how it waits for it.

    This one starts the controller as Ray's own does, but leaves the signals to `followed`: Ray's
    would end the workers at once.
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
