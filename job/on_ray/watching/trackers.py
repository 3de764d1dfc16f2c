"""MLflow and Weights & Biases: what a run reports goes to them too (`run.trackers`).

Each has a thread of its own in the process of the run's controller. A server that is slow or gone
holds nothing up and ends nothing: what it has missed is counted and said. Where the trackers send
to, they take from their own environment variables (`MLFLOW_*`, `WANDB_*`), those of the driver.
"""

import os
import queue
import threading
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import yaml

from data.files import below, is_local, put_file, read_file
from data.settings.dotted_keys import flat
from job.on_ray.private import RunWatcher
from job.settings.cli import to_yaml
from job.settings.config import Config
from job.settings.paths import run_folder
from trainable.run.format import tracker_name

ENVIRONMENT = ("MLFLOW_", "WANDB_")  # what the variables of trackers begin with
WAITING = 1000  # reports at most, before further ones are lost
END_WITHIN_S = 30
PARAMS_PER_CALL = 100  # MLflow takes no more
EXPERIMENT = "bert-vits2"  # where the environment names none


class Sink(Protocol):
    """An open run of a tracker."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Send a report; `step` is in it."""

    def close(self) -> None:
        """End the run there."""


class Tracker(RunWatcher):
    """Passes on what a run reports to a tracker.

    Attributes:
        tracker: name of the tracker.
        run: name of the run.
        folder: folder or URI of the run, which keeps the tracker's own name of it.
        config: the configuration as sections.
    """

    tracker: str

    def __init__(self, cfg: Config):
        """Prepare to pass on.

        Args:
            cfg: configuration of the run.
        """
        self.run = cfg.run.name
        self.folder = run_folder(cfg)
        self.config = yaml.safe_load(to_yaml(cfg))
        self.thread: threading.Thread | None = None
        self.environment = {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT)}

    @abstractmethod
    def connect(self) -> Sink:
        """Begin a run at the tracker, or continue this one's."""

    def begun(self) -> None:
        """Start the thread."""
        os.environ.update(self.environment)
        self.lines: queue.SimpleQueue[dict[str, float] | None] = queue.SimpleQueue()
        self.missed = 0
        self.thread = threading.Thread(target=self._send, name=self.tracker, daemon=True)
        self.thread.start()

    def reported(self, metrics: Mapping[str, float], checkpoint: str) -> None:
        """Hand a report to the thread."""
        if self.lines.qsize() < WAITING:
            self.lines.put(dict(metrics))
        else:
            self.missed += 1

    def ended(self) -> None:
        """Wait until all is sent, but not for ever."""
        if self.thread is None:  # the run has ended before it has begun
            return
        self.lines.put(None)
        self.thread.join(END_WITHIN_S)
        if self.missed:
            print(f"{self.tracker} has missed {self.missed} reports of the run {self.run}")

    def own_name(self, make: Callable[[], str]) -> str:
        """Return the tracker's name of this run, which the run's folder keeps.

        Args:
            make: makes one, if the run has none yet.
        """
        uri = below(self.folder, tracker_name(self.tracker))
        try:
            return read_file(uri).decode()
        except FileNotFoundError:
            made = make()
            put_file(uri, made.encode())
            return made

    def _send(self) -> None:
        sink = None
        while (line := self.lines.get()) is not None:
            try:
                sink = sink or self.connect()
                sink.log(line)
            except Exception as error:  # noqa: BLE001  # each tracker has exceptions of its own
                if not self.missed:
                    print(f"{self.tracker} does not take reports, the run continues: {error}")
                self.missed += 1
        if sink is not None:
            sink.close()


class MlflowRun:
    """An open run of MLflow: a Sink."""

    def __init__(self, client: Any, name: str):
        self.client = client
        self.name = name
        client.update_run(name, status="RUNNING")

    def log(self, metrics: Mapping[str, float]) -> None:
        """Send a report."""
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), int(metrics["step"])
        sent = [Metric(tag, float(value), now, step) for tag, value in metrics.items()]
        self.client.log_batch(self.name, metrics=sent)

    def close(self) -> None:
        """End it."""
        self.client.set_terminated(self.name)


class Mlflow(Tracker):
    """Passes on to MLflow."""

    tracker = "mlflow"

    def connect(self) -> Sink:
        """Begin a run in the experiment, with the configuration as parameters, or continue."""
        # MLflow wants no folders any more, but whoever names one has chosen it
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        client = MlflowClient()
        return MlflowRun(client, self.own_name(lambda: self._create(client)))

    def _create(self, client: Any) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        run = client.create_run(experiment, run_name=self.run).info.run_id
        params = [Param(key, str(value)) for key, value in flat(self.config).items()]
        for first in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run, params=params[first : first + PARAMS_PER_CALL])
        return run


class WandbRun:
    """An open run of Weights & Biases: a Sink."""

    def __init__(self, run: Any):
        self.run = run
        # a run that continues repeats steps, which W&B's own counter forbids
        run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float]) -> None:
        """Send a report."""
        self.run.log(dict(metrics))

    def close(self) -> None:
        """End it."""
        self.run.finish()


class Wandb(Tracker):
    """Passes on to Weights & Biases."""

    tracker = "wandb"

    def connect(self) -> Sink:
        """Begin a run in the project, with the configuration, or continue."""
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", EXPERIMENT),
            name=self.run,
            id=self.own_name(lambda: uuid.uuid4().hex),
            resume="allow",
            config=self.config,
            dir=os.environ.get("WANDB_DIR") or (self.folder if is_local(self.folder) else None),
            settings=wandb.Settings(console="off", silent=True),
        )
        return WandbRun(run)


def trackers(cfg: Config) -> list[Tracker]:
    """Return the trackers of a configuration."""
    known = {cls.tracker: cls for cls in (Mlflow, Wandb)}
    return [known[name](cfg) for name in cfg.run.trackers]
