"""The whole configuration: sections, each beside its owner, and what belongs to the job itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from data.config import DataConfig
from data.settings.declared import Count, Range, Settings, Text
from trainable.config import EvalConfig, TrainConfig
from trainable.model_config import ModelConfig

Above0 = Annotated[float, Range(above=0)]
# key of further resources -> what is none of them, and why
NOT_AMONG_RESOURCES = (
    ("worker_resources", "CPU", "scaling.cpus_per_worker says how many a worker takes"),
    ("worker_resources", "GPU", "each worker takes one whole GPU where scaling.device wants them"),
    ("loader_resources", "CPU", "each loader takes one"),
    ("loader_resources", "GPU", "a loader has no use for it"),
)


@dataclass(frozen=True)
class RunSettings(Settings, section="run"):
    """Where a run lives.

    Attributes:
        name: name of the run; the same name continues it.
        storage: folder or URI; the run's folder is `<storage>/<name>`.
        trackers: who is told of losses, rates and scores too (docs/monitoring.md).
    """

    name: Text = "run"
    storage: Text = "runs"
    trackers: tuple[Literal["mlflow", "wandb"], ...] = ()


@dataclass(frozen=True)
class ScalingSettings(Settings, section="scaling"):
    """How many workers, and what each is given.

    Attributes:
        num_workers: workers, or [min, max] for an elastic run.
        max_share: share of the cluster that an elastic run may take, of the GPUs or whatever its
            workers take; 1: all that is free. The other jobs have the rest (docs/cluster.md).
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
            have joined, and the workers are restarted; at least 3 x train.hang_timeout_s + 60, as
            the report of a hang, which says who waits for whom, must come first.
    """

    num_workers: Count | list[Count] = 1
    max_share: Annotated[float, Range(above=0, high=1)] = 1.0
    threads_per_worker: Count = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: Above0 = 1.0
    worker_resources: dict[str, Above0] = field(default_factory=dict)
    loader_resources: dict[str, Above0] = field(default_factory=dict)
    max_failures: Annotated[int, Range(-1)] = 8
    resize_interval_s: Above0 = 15.0
    health_poll_s: Above0 = 0.5
    start_timeout_s: Above0 = 10.0
    notice_poll_s: Above0 = 2.0
    collective_timeout_s: Above0 = 1900.0

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most workers."""
        given = self.num_workers
        low, high = [given, given] if isinstance(given, int) else given
        return low, high

    def problems(self) -> Iterator[str]:
        """Yield a number of workers that is none, and resources that have keys of their own."""
        given = self.num_workers
        if isinstance(given, list) and (len(given) != 2 or given[0] > given[1]):
            yield f"scaling.num_workers is {given}: give a number from 1, or [min, max]"
        if isinstance(given, int) and self.max_share < 1:
            yield (
                f"scaling.max_share is {self.max_share:g}, and scaling.num_workers is {given}: a "
                "fixed number takes no share; give [min, max], or leave max_share at 1"
            )
        for key, resource, instead in NOT_AMONG_RESOURCES:
            if resource in getattr(self, key):
                yield f"scaling.{key} has {resource}: take it out; {instead}"


@dataclass(frozen=True)
class Config(Settings):
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
