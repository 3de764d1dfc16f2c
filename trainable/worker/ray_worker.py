"""All that a worker asks of Ray Train, in one object; tests put another one in its place."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from torch import nn

from trainable.distributed.collectives import broadcast, collective
from trainable.distributed.wrapping import ddp_settings, same_weights, sending
from trainable.worker.config import WorkerConfig
from trainable.worker.preemption import Notice

REPORTS_WAITING = 4  # at most, for the cluster to fetch them: a checkpoint's comes behind them


class Worker(Protocol):
    """This process as one of the workers of a run.

    Attributes:
        rank: rank of this worker.
        world_size: number of workers.
        device: where its networks lie.
    """

    rank: int
    world_size: int
    device: torch.device

    @collective
    def wrap(self, net: nn.Module) -> nn.Module:
        """Move a network to this worker's device, and wrap it where there are several workers."""

    @collective
    def report_progress(self, metrics: Mapping[str, float]) -> None:
        """Tell the cluster how the run stands, and wait for nothing.

        Where reports come faster than the cluster fetches them, some are left out.
        """

    @collective
    def report_checkpoint(
        self, name: str, metrics: Mapping[str, Any], durable: Callable[[], str], wait: bool
    ) -> None:
        """Tell the cluster of a checkpoint in the run's folder.

        Args:
            name: name of the checkpoint.
            metrics: what is told with it.
            durable: waits for the writing, and returns the name of the newest durable checkpoint,
                which is reported in place of one that could not be written.
            wait: return when `durable` has; otherwise it is called beside the training.
        """

    @collective
    def ask_for_notice(self) -> Notice | None:
        """Return the notice that the workers will be ended; None if there is none."""


class Pace:
    """Reckons how many reports wait: Ray Train's controller fetches one whenever it looks.

    Args:
        seconds: from one look to the next.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.waiting = 0.0
        self.asked = time.monotonic()

    def allows_one_more(self) -> bool:
        """Tell whether another report may wait, and count it then."""
        now = time.monotonic()
        self.waiting = max(0.0, self.waiting - (now - self.asked) / self.seconds)
        self.asked = now
        allowed = self.waiting + 1 <= REPORTS_WAITING
        self.waiting += allowed
        return allowed


class RayWorker:
    """This process as a worker of Ray Train: a Worker.

    Args:
        told: what this worker is told; `train` decides how networks are wrapped.
    """

    def __init__(self, told: WorkerConfig) -> None:
        self.told = told
        self.pace = Pace(told.health_poll_s)
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        if self.device.type == "cuda":
            # before the first collective call: the node's workers see all its GPUs
            torch.cuda.set_device(self.device)

    @collective
    def wrap(self, net: nn.Module) -> nn.Module:
        """Move a network to this worker's device, and wrap it for DDP if that adds up gradients."""
        if self.told.train.reduction == "exact":
            # it adds up integers itself: DDP's buckets would hold a second copy of all gradients
            return same_weights(net.to(self.device))
        settings = ddp_settings(self.told.train)
        wrapped = ray.train.torch.prepare_model(net, parallel_strategy_kwargs=settings)
        return sending(wrapped, self.told.train)

    @collective
    def report_progress(self, metrics: Mapping[str, float]) -> None:
        """Tell Ray Train how the run stands; see Worker."""
        # every rank's clock differs: rank 0's counts
        if broadcast(self.pace.allows_one_more()):
            # beside the training, also while a checkpoint is written, whose report comes before it
            ray.train.report(dict(metrics), checkpoint_upload_mode=CheckpointUploadMode.ASYNC)

    @collective
    def report_checkpoint(
        self, name: str, metrics: Mapping[str, Any], durable: Callable[[], str], wait: bool
    ) -> None:
        """Tell Ray Train of a checkpoint; see Worker."""
        ray.train.report(
            dict(metrics),
            checkpoint=self._checkpoint(name) if self.rank == 0 else None,
            checkpoint_dir_name=name,
            checkpoint_upload_mode=(
                CheckpointUploadMode.SYNC if wait else CheckpointUploadMode.ASYNC
            ),
            checkpoint_upload_fn=lambda _checkpoint, _name: self._checkpoint(durable()),
            # it lies where it stays, and ASYNC would delete it
            delete_local_checkpoint_after_upload=False,
        )

    @collective
    def ask_for_notice(self) -> Notice | None:
        """Return Ray Train's notice; the question is a barrier of some milliseconds."""
        return ray.train.get_preemption_info()

    def _checkpoint(self, name: str) -> Checkpoint:
        """Return a checkpoint of the run's folder, as Ray Train knows it."""
        storage = ray.train.get_context().get_storage()
        path = storage.build_checkpoint_path_from_name(name)
        return Checkpoint(path, storage.storage_filesystem)
