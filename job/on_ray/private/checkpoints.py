"""The book that Ray Train's controller keeps of checkpoints, and its form in a run's folder."""

import logging
from collections.abc import Mapping
from typing import Any

from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    CheckpointManager,
    _CheckpointManagerState,
    _TrainingResultState,
)

# The module whose book is replaced by ours.
from ray.train.v2._internal.execution.controller import controller as controller_module

from job.on_ray.private.releases import needs

needs(controller_module, "CheckpointManager")
needs(
    CheckpointManager,
    "_maybe_load_state_from_storage",
    "_save_state_and_delete_old_checkpoints",
    "_checkpoint_results",
    "_latest_checkpoint_result",
    "_checkpoint_to_report_index",
)


def list_of_checkpoints(told: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return a list of checkpoints as `Result.from_path` reads it.

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
    """Ray Train's book of checkpoints, without those that somebody else removes and lists."""

    def _maybe_load_state_from_storage(self) -> None:
        """Begin empty: what the run continues from is found in its folder."""

    def _save_state_and_delete_old_checkpoints(self) -> None:
        newest = self._latest_checkpoint_result
        assert newest is not None
        index = self._checkpoint_to_report_index[newest.checkpoint]
        self._checkpoint_results = [newest]
        self._checkpoint_to_report_index = {newest.checkpoint: index}


def keep_no_list_of_checkpoints() -> None:
    """Have controllers that are made in this process neither write nor read a list of them."""
    controller_module.CheckpointManager = NewestCheckpointAlone  # type: ignore[misc]


def quieten_snapshots() -> None:
    """Hide that a run's list of checkpoints is read for its result, which Ray takes for a restart.

    Its words tell the user to rename a run that has just come to its good end.
    """
    logging.getLogger(CheckpointManager.__module__).setLevel(logging.WARNING)
