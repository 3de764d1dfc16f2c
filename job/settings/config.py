"""The whole configuration: sections, each beside its owner, and what belongs to the job itself."""

from dataclasses import dataclass, field
from typing import Literal

from data.config import DataConfig
from trainable.config import EvalConfig, ModelConfig, TrainConfig


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives.

    Attributes:
        name: of the run; the same name continues it.
        storage: folder or URI; the run's folder is `<storage>/<name>`.
    """

    name: str = "run"
    storage: str = "runs"


@dataclass(frozen=True)
class ScalingConfig:
    """How many workers, and what each is given.

    Attributes:
        num_workers: workers, or [min, max] for an elastic run.
        threads_per_worker: torch threads of each; fixed here, never by the number of workers.
        device: `auto` takes GPUs where some are up; `cuda` waits for them, where an autoscaler
            starts them from none.
        cpus_per_worker: logical CPUs that Ray reserves for each.
        worker_resources: further resources of the cluster that each worker takes, such as {trainer:
            1}.
        loader_resources: further resources that each loader of data takes, such as {data: 1}: it
            runs on nodes that have them, and not on the workers'.
        max_failures: restarts after a worker or node died, before the run gives up; -1: without
            limit. Nodes that go with a notice do not count.
        resize_interval_s: seconds between looks whether an elastic run can grow; each growth
            restarts the workers.
        health_poll_s: seconds between looks at the workers.
        start_timeout_s: seconds until workers must have been placed; then the cluster is looked at
            anew.
        notice_poll_s: seconds between looks for a notice that a node goes (a spot reclaim).
        collective_timeout_s: seconds until a collective operation that not all workers have joined
            fails, and the workers are started anew; longer than train.hang_timeout_s, whose report
            says who waits for whom.
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
            ValueError: not a positive number or an ascending pair of such.
        """
        n = self.num_workers
        low, high = (n, n) if isinstance(n, int) else tuple(n) if len(n) == 2 else (0, 0)
        if not 1 <= low <= high:
            raise ValueError(f"scaling.num_workers is {n}: give a number from 1, or [min, max]")
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

    run: RunConfig = field(default_factory=RunConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
