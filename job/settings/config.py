"""The whole configuration: sections, each beside its owner, and what belongs to the job itself."""

from dataclasses import dataclass, field
from typing import Literal

from data.config import DataConfig
from trainable.config import EvalConfig, ModelConfig, TrainConfig


@dataclass(frozen=True)
class RunSettings:
    """Where a run lives.

    Attributes:
        name: name of the run; the same name continues it.
        storage: folder or URI; the run's folder is `<storage>/<name>`.
    """

    name: str = "run"
    storage: str = "runs"


@dataclass(frozen=True)
class ScalingSettings:
    """How many workers, and what each is given.

    Attributes:
        num_workers: workers, or [min, max] for an elastic run.
        threads_per_worker: torch threads of each worker; fixed here, never by the number of
            workers.
        device: `auto` takes GPUs if some are up; `cuda` waits for them if an autoscaler starts them
            from none.
        cpus_per_worker: logical CPUs that Ray reserves for each worker.
        worker_resources: further resources of the cluster that each worker takes, such as {trainer:
            1}.
        loader_resources: further resources that each loader of data takes, such as {data: 1}: it
            runs on nodes that have them, and not on the workers'.
        max_failures: restarts after a worker or node died, without a new checkpoint in between,
            before the run gives up; -1: without limit. Nodes that go with a notice do not count.
        resize_interval_s: seconds between looks whether an elastic run can grow; each growth
            restarts the workers.
        health_poll_s: seconds between looks at the workers.
        start_timeout_s: seconds within which workers must have been placed; then the cluster is
            looked at again.
        notice_poll_s: seconds between looks for a notice that a node goes (a spot reclaim).
        collective_timeout_s: seconds after which a collective operation fails that not all workers
            have joined, and the workers are restarted; longer than train.hang_timeout_s, whose
            report says who waits for whom.
    """

    num_workers: int | list[int] = 1
    threads_per_worker: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: float = 1.0
    worker_resources: dict[str, float] = field(default_factory=dict)
    loader_resources: dict[str, float] = field(default_factory=dict)
    max_failures: int = 8
    resize_interval_s: float = 15.0
    health_poll_s: float = 0.5
    start_timeout_s: float = 10.0
    notice_poll_s: float = 2.0
    collective_timeout_s: float = 900.0

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most workers.

        Raises:
            ValueError: not a positive number or an ascending pair of positive numbers.
        """
        given = self.num_workers
        pair = [given, given] if isinstance(given, int) else given
        if len(pair) != 2 or not 1 <= pair[0] <= pair[1]:
            raise ValueError(f"scaling.num_workers is {given}: give a number from 1, or [min, max]")
        low, high = pair
        return low, high


@dataclass(frozen=True)
class Config:
    """The resolved configuration of a command.

    Attributes:
        run: where the run lives.
        scaling: workers.
        data: recordings, shards, features.
        model: networks.
        train: training.
        eval: validation.
    """

    run: RunSettings = field(default_factory=RunSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
