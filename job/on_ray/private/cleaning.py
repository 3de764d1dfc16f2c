"""The actor that frees what a dead controller held; needs no torch."""

from typing import Any

# What starts that actor.
from ray.train.v2._internal.callbacks import placement_group_callback

# The actor, and how it finds out that the controller is dead.
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.controller.placement_group_cleaner import (
    PlacementGroupCleaner,
)

from job.on_ray.private.releases import needs

needs(placement_group_callback, "PlacementGroupCleaner")
needs(placement_group_cleaner, "is_actor_alive")


def start_cleaners_of(cls: type[PlacementGroupCleaner]) -> None:
    """Have `PlacementGroupCleanerCallback` start actors of this class, in this process."""
    placement_group_callback.PlacementGroupCleaner = cls  # type: ignore[misc]


def judge_controllers_by(is_alive: Any) -> None:
    """Have cleaners ask this function whether a controller lives, in this process.

    Args:
        is_alive: (actor id, timeout in seconds) -> whether the actor lives.
    """
    placement_group_cleaner.is_actor_alive = is_alive
