"""What frees the resources of a dead controller; without torch, as a process of its own runs it."""

from typing import Any

from job.on_ray.private import (
    PlacementGroupCleaner,
    PlacementGroupCleanerCallback,
    TrainRunContext,
    cluster_state,
    judge_controllers_by,
    start_cleaners_of,
)


class Cleaner(PlacementGroupCleaner):
    """Ray Train's actor that frees a dead controller's resources, for a Ray without a dashboard.

    Ray's own asks the dashboard whether the controller lives. A local Ray has none, so what a
    stopped trial of a sweep held would stay reserved.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        # here and not at import, as only this actor's process is to be changed
        judge_controllers_by(lives)


class CleanerCallback(PlacementGroupCleanerCallback):
    """Ray Train's callback that starts its cleaner, starting ours."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Start the cleaner."""
        start_cleaners_of(Cleaner)
        super().after_controller_start(train_run_context)


def lives(actor_id: str, timeout: float) -> bool:
    """Return whether an actor lives, by Ray's control service, which answers at once."""
    return cluster_state.actor_table(actor_id).get("State") not in (None, "DEAD")
