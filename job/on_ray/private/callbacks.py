"""What happens to a run, as its controller tells its callbacks."""

from collections.abc import Mapping
from typing import Any

# What Ray Train's controller calls when something happens to its run.
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerGroupCallback,
)

# What callbacks are told of their run: its name and storage.
from ray.train.v2._internal.execution.context import TrainRunContext

# What a policy or callback is shown of the running workers.
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus

from job.on_ray.private.releases import needs

needs(ControllerCallback, "after_controller_start", "before_controller_shutdown")
needs(ReportCallback, "after_report")
needs(
    WorkerGroupCallback,
    "after_worker_group_start",
    "after_worker_group_poll_status",
    "before_worker_group_shutdown",
)


class RunWatcher(ControllerCallback, ReportCallback, WorkerGroupCallback):
    """Is told by a run's controller, in whose process it lives, what happens to the run.

    Needs the hooks of Ray's callbacks, and `checkpoint` of its reports.
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
