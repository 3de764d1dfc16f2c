"""Parts of a worker that need no Ray, no data and no networks."""

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ray.train import PreemptionInfo
from torch import nn

from data.plan.epoch_plan import UNPADDED, Position
from data.plan.history import Cut, begun
from data.plan.schedule import Schedule
from data.settings.plan import PlanConfig
from job.settings.config import Config
from trainable.worker.config import WorkerConfig

GROWN = PreemptionInfo(deadline_ms=0, preempted_node_to_ranks={})
DRAINED = PreemptionInfo(deadline_ms=0, preempted_node_to_ranks={"node": [1]})


class FakeWorker:
    """One worker of one, in place of Ray Train's."""

    def __init__(self, notices: Mapping[int, PreemptionInfo] | None = None):
        """Begin.

        Args:
            notices: number of a question, counted from 1 -> what is answered.
        """
        self.rank = 0
        self.world_size = 1
        self.device = torch.device("cpu")
        self.notices = dict(notices or {})
        self.questions = 0
        self.reported: list[tuple[str, dict[str, Any], bool]] = []
        self.told: list[dict[str, float]] = []

    def wrap(self, net: nn.Module) -> nn.Module:
        return net

    def report_progress(self, metrics: Mapping[str, float]) -> None:
        self.told.append(dict(metrics))

    def report_checkpoint(
        self, name: str, metrics: Mapping[str, Any], durable: Callable[[], str], wait: bool
    ) -> None:
        self.reported.append((durable() if wait else name, dict(metrics), wait))

    def ask_for_notice(self) -> PreemptionInfo | None:
        self.questions += 1
        return self.notices.get(self.questions)


def worker_config(cfg: Config, folder: str) -> WorkerConfig:
    return WorkerConfig(
        data=cfg.data,
        model=cfg.model,
        train=cfg.train,
        eval=cfg.eval,
        folder=folder,
        threads=1,
        notice_poll_s=0.0,
        health_poll_s=0.5,
        collective_timeout_s=1.0,
        loader_resources={},
        owner="",
        config_yaml="train: {}\n",
        code_version="code",
    )


def schedule(utterances: int, per_micro_batch: int = 2, micro_batches: int = 1) -> Schedule:
    """The order of a corpus of equally long utterances."""
    plan = PlanConfig(
        max_frames=100 * per_micro_batch, max_utterances=per_micro_batch, pad_to=UNPADDED
    )
    lengths = np.full(utterances, 100)
    rows = np.arange(utterances)
    return Schedule(begun(Cut(1, micro_batches, 1, False, plan)), rows, lengths, lengths)


def fake_watchdog(events: list | None = None) -> Any:
    """A watchdog that notes what may take long."""

    class Watchdog:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def alive(self, step: int, long: bool = False) -> None:
            if events is not None:
                events.append(("alive", step, long))

    return Watchdog()


class FakeStream:
    """Takes the place of the micro-batches: each step has one, which knows its position."""

    def __init__(self, first: Position, last_step: int, make: Callable[[int], Any]):
        self.first = first
        self.last_step = last_step
        self.make = make
        self.stopped = False

    def __iter__(self) -> Iterator[list]:
        for number in range(self.first.step + 1, self.last_step + 1):
            assert not self.stopped
            yield [SimpleNamespace(slot=0, batch=self.make(number))]

    def stop(self) -> None:
        self.stopped = True
