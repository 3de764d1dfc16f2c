"""What a worker is told."""

from dataclasses import dataclass

from data.config import DataConfig
from trainable.config import EvalConfig, TrainConfig
from trainable.model_config import ModelConfig


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told; the same on all ranks.

    Attributes:
        data: the data.
        model: the networks.
        train: the training.
        eval: the validation.
        folder: folder or URI of the run.
        threads: torch threads of this worker; from the configuration, never from the number of
            workers.
        notice_poll_s: seconds between questions for a notice that a node is leaving.
        health_poll_s: seconds between looks of the cluster at what workers report.
        collective_timeout_s: seconds after which a collective operation fails that not all workers
            join.
        loader_resources: further resources of the cluster that each loader takes.
        owner: the claim of the folder by the job that was started last.
        config_yaml: resolved configuration of the run, for the checkpoints.
        code_version: version of the code that runs.
    """

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    eval: EvalConfig
    folder: str
    threads: int
    notice_poll_s: float
    health_poll_s: float
    collective_timeout_s: float
    loader_resources: dict[str, float]
    owner: str
    config_yaml: str
    code_version: str

    @property
    def retry_s(self) -> float:
        """Seconds that a failing storage is tried again."""
        return self.train.checkpoint.retry_s
