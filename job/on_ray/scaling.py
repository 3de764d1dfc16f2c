"""Elastic scaling of a run: Ray Train's policies with a fresh view of the cluster.

Ray Train 2.60's own policy works, but slowly (docs/recovery.md has the figures):

- It counts nodes from a view that is up to 20 s old and still holds nodes that are gone or going.
  It then waits for workers on them until its start timeout, again and again, until a drained node
  has gone.
- It grows by ending the workers without notice, so the steps since the last checkpoint are done
  again.
- It reserves nodes under an id that is new at each start of a driver. What a killed driver had
  reserved stays reserved for three minutes, and the driver that continues its run waits for it.

Subclasses of its policies correct all three. There is no public way to hand one in, so the
trainer's private hook is used; Ray is pinned, and tests/job/test_elastic.py fails if a release
changes it.
"""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import ray
from ray.train import PreemptionInfo

# the class that ray.train.torch holds at run time; by this path, mypy knows it too
from ray.train.v2.torch.torch_trainer import TorchTrainer

from data.files import ascii_name
from job.on_ray.cleaning import CleanerCallback
from job.on_ray.failures import FailuresInARow, newest_step
from job.on_ray.private import (
    ElasticPolicy,
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NamedReservation,
    NoopDecision,
    PlacementGroupCleanerCallback,
    ResizeDecision,
    RunWatcher,
    ScalingConfig,
    ScalingDecision,
    TailoredController,
    TrainAutoscalingCoordinatorClient,
    TrainRunContext,
    WorkerGroupPollStatus,
    WorkerGroupState,
    announce_preemption,
    cluster_state,
)
from job.on_ray.sharing import most_workers
from job.on_ray.stopping import CONCURRENCY, SAVE_WITHIN_S, Controller
from job.on_ray.storage import with_listed_checkpoints
from job.on_ray.watching.waiting import Waiting
from trainable.run.storage import owner
from trainable.worker.config import WorkerConfig

ANSWER_WITHIN_S = 5
MAX_SHARE = 1.0
LOOK_EVERY_S = 0.1  # at signals
STOPS = "stops: the workers finish their step and save (a second signal ends them at once)"


def requester_id(run: str) -> str:
    """Return the name under which the cluster holds what a run has reserved.

    Args:
        run: path of the run's folder in its storage.
    """
    # Ray's own names are ASCII
    return f"train-{run if run.isascii() else ascii_name(run)}"


def give_back(run: str) -> None:
    """Free at once what a run has reserved whose driver was ended; Ray takes three minutes.

    Args:
        run: path of the run's folder in its storage.
    """
    TrainAutoscalingCoordinatorClient(requester_id(run)).cancel_resource_request()


class ReservesForTheRun(NamedReservation):
    """A policy that reserves under the run's folder, so that the run's next driver takes over.

    Attributes:
        told: what the workers are told, with the run's folder and its claim.
    """

    def __init__(self, scaling_config: ScalingConfig, told: WorkerConfig):
        super().__init__(scaling_config)
        self.told = told

    def is_ours(self) -> bool:
        """Tell whether no other job has claimed the run since, and reserves under its name."""
        return still_ours(self.told)

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Ask the cluster for the workers' resources."""
        run = train_run_context.run_config
        self.reserve_as(requester_id(run.storage_context.experiment_fs_path))


def still_ours(told: WorkerConfig) -> bool:
    """Tell whether no other job has claimed a run since; an unreadable claim is taken for ours."""
    try:
        return owner(told.folder) == told.owner
    except OSError:
        return True


class FixedScaling(ReservesForTheRun, FixedScalingPolicy):
    """Ray Train's policy for a fixed number of workers."""


class PromptScaling(ReservesForTheRun, ElasticPolicy):
    """Ray Train's elastic policy, with a fresh view of the cluster and notice before growth."""

    def __init__(
        self, scaling_config: ScalingConfig, told: WorkerConfig, max_share: float = MAX_SHARE
    ):
        super().__init__(scaling_config, told)
        self.waiting = waiting_for(scaling_config)
        self.max_share = max_share
        self.wanted = scaling_config.max_workers

    def wanted_workers(self) -> int:
        """Return for how many workers resources are reserved: at most the run's share."""
        if self.max_share < MAX_SHARE:
            try:
                self.wanted = most_workers(self.scaling_config, self.max_share)
            except ray.exceptions.RayError as error:
                print(f"the cluster does not answer, the run's share stays for now: {error}")
        return self.wanted

    def keep_to_share(self) -> None:
        """Reserve more or less, as soon as the cluster has grown or shrunk."""
        before = self.wanted
        if self.wanted_workers() != before:
            self.reserve()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start as many workers as there is room for, or wait."""
        self.keep_to_share()
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self.waiting.tell()
        return decision

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """Give the workers notice where Ray's policy would grow: they save, end and are restarted.

        So they are where the run has more than its share. Otherwise a running group never shrinks:
        workers know of a node that is going and save themselves, and a node that is gone has ended
        them.
        """
        self.keep_to_share()
        decision = super().make_decision_for_running_worker_group(
            worker_group_state, worker_group_status
        )
        if not isinstance(decision, ResizeDecision):
            return NoopDecision()

        # a notice of preemption is what makes workers save and leave, so this sends one too
        current = worker_group_state.num_workers
        if decision.num_workers >= current or current > self.wanted:
            deadline = time.time() + SAVE_WITHIN_S
            notice = PreemptionInfo(deadline_ms=int(deadline * 1000), preempted_node_to_ranks={})
            announce_preemption(worker_group_state, notice)
        return NoopDecision()

    def reserved_resources(self) -> dict[str, dict[str, float]] | None:
        """Return what each node that lives and stays holds for the workers; None where unknown."""
        try:
            alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
            staying = alive.keys() - set(cluster_state.get_draining_nodes())
            return self.what_is_reserved({node: alive[node] for node in staying}, ANSWER_WITHIN_S)
        except ray.exceptions.RayError as error:
            print(f"the cluster does not answer, the number of workers stays for now: {error}")
            return None


def waiting_for(config: ScalingConfig) -> Waiting:
    """Return who tells that the fewest workers of a run have no room yet."""
    per_worker: Any = config.resources_per_worker  # Ray's type also allows what Tune searches
    return Waiting(config.min_workers, per_worker or {})


class ElasticTrainer(TailoredController, TorchTrainer):
    """A TorchTrainer that scales by our policies, counts failures by ours, and can be stopped.

    It scales by `PromptScaling`, or by `FixedScaling` for a fixed number.

    Attributes:
        stop: once it is set, the workers save and the run ends.
        watchers: are told by the controller what happens to the run.
        max_share: share of the cluster that the run may take, if it is elastic.
    """

    controller_class = Controller
    controller_options: ClassVar[dict[str, Any]] = {"concurrency_groups": CONCURRENCY}

    def __init__(
        self,
        *args: Any,
        watchers: Sequence[RunWatcher] = (),
        max_share: float = MAX_SHARE,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self.stop = threading.Event()
        self.watchers = watchers
        self.max_share = max_share

    @property
    def told(self) -> WorkerConfig:
        """What the workers are told."""
        return self.train_loop_config["worker"]  # type: ignore[index]

    def tailored(self, controller: dict[str, Any]) -> dict[str, Any]:
        """Replace Ray Train's policies and cleaner by ours."""
        given = controller["scaling_policy"]
        scaling: Any = FixedScaling
        if isinstance(given, ElasticScalingPolicy):
            scaling = partial(PromptScaling, max_share=self.max_share)
        failures = FailuresInARow(
            controller["failure_policy"].failure_config,
            partial(newest_step, self.told.folder),
            waiting_for(given.scaling_config).tell,
        )
        callbacks = [
            CleanerCallback() if isinstance(callback, PlacementGroupCleanerCallback) else callback
            for callback in controller["callbacks"]
        ]
        return controller | {
            "scaling_policy": scaling(given.scaling_config, self.told),
            "failure_policy": failures,
            "callbacks": [*callbacks, *self.watchers],
        }

    def lifetime(self) -> str | None:
        """Let the controller outlive a driver, for the workers to save; a trial's ends with it."""
        return "detached" if ray.get_runtime_context().get_actor_id() is None else None

    def followed(self, controller: Any) -> Any:
        """Return the controller's result; pass on that the run is to stop.

        Whatever ends the waiting ends the controller too, and gives back what it had reserved.
        """
        running = controller.run.remote()
        told = False
        try:
            while not ray.wait([running], timeout=LOOK_EVERY_S)[0]:
                if self.stop.is_set() and not told:
                    controller.stop.remote()
                    told = True
                    print(STOPS, flush=True)
            ray.get(running)
            result = ray.get(controller.get_result.remote())
        except BaseException:
            ray.kill(controller)
            folder = self.run_config.storage_context  # type: ignore[attr-defined]  # V2's
            if still_ours(self.told):
                give_back(folder.experiment_fs_path)
            raise
        # nobody else ends a detached one
        ray.kill(controller)
        return with_listed_checkpoints(result)
