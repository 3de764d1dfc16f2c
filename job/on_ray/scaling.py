"""Elastic scaling of a run: Ray Train's policy, looking at the cluster as it is now, and growing without loss.

Ray Train 2.60's own policy works, but slowly (docs/recovery.md has the figures):
- It counts nodes from a view that is up to 20 s old, in which nodes that are gone or going still
  stand. It then waits for workers on them until its start timeout, again and again until a drained
  node has gone.
- It grows by ending the workers without a word, so that the steps since the last checkpoint are
  done again.
- It reserves nodes under an id that is new at each start of a driver. What a killed driver had
  reserved stays so for three minutes, and the one that goes on with its run waits for it.

All are mended in subclasses of its policies. There is no public way to hand one in, so the
trainer's private hook is used; Ray is pinned, and tests/job/test_elastic.py fails if a release
changes it.
"""

import time
from typing import Any

import ray
from ray._private.state import state as cluster_state
from ray.train import PreemptionInfo, Result
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import placement_group_cleaner
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState

# what ray.train.torch gives; said so for mypy
from ray.train.v2.torch.torch_trainer import TorchTrainer

# growth can wait: workers that have not saved themselves by then are ended all the same
SAVE_WITHIN_S = 1800
ANSWER_WITHIN_S = 5


def requester_id(run: str) -> str:
    """Under which the cluster holds what a run has reserved.

    Args:
        run: path of the run's folder in its storage.
    """
    return f"train-{run}"


def give_back(run: str) -> None:
    """Let the cluster forget what a run has reserved whose driver was ended; at once instead of after three minutes.

    Args:
        run: path of the run's folder in its storage.
    """
    TrainAutoscalingCoordinatorClient(requester_id(run)).cancel_resource_request()


class ReservesForTheRun(ScalingPolicy):
    """A policy whose reservation bears the name of the run's folder: the run's next driver takes it over."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Ask the cluster for the workers' resources."""
        run = train_run_context.run_config
        self._requester_id = requester_id(f"{run.storage_path}/{run.name}")
        self._coordinator_client = TrainAutoscalingCoordinatorClient(self._requester_id)
        self._send_resource_request()


class FixedScaling(ReservesForTheRun, FixedScalingPolicy):
    """Ray Train's policy for a fixed number of workers."""


class PromptScaling(ReservesForTheRun, ElasticScalingPolicy):
    """Ray Train's elastic policy, with a fresh view of the cluster, and a word to the workers before it grows."""

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """Where Ray's policy would grow, tell the workers: they save themselves and end, and are started anew.

        It never shrinks what runs: the workers know of a node that is going, and save themselves
            too; one that is gone
        has ended them.
        """
        decision = super().make_decision_for_running_worker_group(
            worker_group_state, worker_group_status
        )
        if (
            not isinstance(decision, ResizeDecision)
            or decision.num_workers < worker_group_state.num_workers
        ):
            return NoopDecision()
        notice = PreemptionInfo(
            deadline_ms=int((time.time() + SAVE_WITHIN_S) * 1000), preempted_node_to_ranks={}
        )
        for worker in worker_group_state.workers:
            worker.actor.mark_preempt.remote(notice)
        return NoopDecision()

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        """What each node has for the workers, of nodes that live and stay; None where nobody knows."""
        try:
            question = self._autoscaling_coordinator.get_reserved_resources.remote(
                self._requester_id, recompute=True
            )
            reserved = ray.get(question, timeout=ANSWER_WITHIN_S)
        except ray.exceptions.RayError as error:
            print(
                f"the cluster does not say what it has, the number of workers stays for now: {error}"
            )
            return None
        staying = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - set(
            cluster_state.get_draining_nodes()
        )
        return {node: of for node, of in reserved.items() if node in staying}


class Cleaner(placement_group_cleaner.PlacementGroupCleaner):
    """Ray Train's actor that frees the workers' resources when the controller was ended, for Rays without a dashboard.

    Ray's asks the dashboard whether the controller lives. A local Ray has none: what a stopped
    trial of a sweep had would stay reserved.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        placement_group_cleaner.is_actor_alive = lives  # in this actor's process


class CleanerCallback(PlacementGroupCleanerCallback):
    """Ray Train's callback that starts its cleaner, starting ours."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Start the cleaner."""
        placement_group_callback.PlacementGroupCleaner = Cleaner  # type: ignore[misc, assignment]  # in this process
        super().after_controller_start(train_run_context)


def lives(actor_id: str, timeout: float) -> bool:
    """Whether an actor lives, by Ray's control service, which answers at once."""
    return cluster_state.actor_table(actor_id).get("State") not in (None, "DEAD")


class ElasticTrainer(TorchTrainer):
    """A TorchTrainer that scales by `PromptScaling` where its number of workers is a range, else by `FixedScaling`."""

    def _initialize_and_run_controller(self, **controller: Any) -> Result:
        given = controller["scaling_policy"]
        ours = PromptScaling if isinstance(given, ElasticScalingPolicy) else FixedScaling
        controller["scaling_policy"] = ours(given.scaling_config)
        controller["callbacks"] = [
            CleanerCallback() if isinstance(c, PlacementGroupCleanerCallback) else c
            for c in controller["callbacks"]
        ]
        return super()._initialize_and_run_controller(**controller)
