"""When a run saves itself, and how it leaves when a notice says that the workers will be ended."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from data.files import StorageError
from data.plan.history import History
from data.shards.manifest import Manifest
from trainable.distributed.collectives import broadcast, collective
from trainable.learning.state import TrainState
from trainable.run.format import CheckpointInfo, checkpoint_name
from trainable.run.logs import upload_log
from trainable.run.records import RunLog
from trainable.run.saver import Saver
from trainable.worker.config import WorkerConfig
from trainable.worker.preemption import (
    Notice,
    PreemptedError,
    StoppedError,
    is_growth,
    is_stop,
    reason,
)
from trainable.worker.progress import show_progress
from trainable.worker.ray_worker import Worker
from trainable.worker.watchdog import Watchdog

log = logging.getLogger("bert_vits2_ray")


@dataclass
class Checkpoints:
    """Saves the run: rank 0 writes, all ranks take part.

    Attributes:
        cfg: what the worker is told.
        worker: this worker, which reports checkpoints to the cluster.
        manifest: manifest of the data.
        history: changes of the data's plan.
        state: what is saved.
        saver: writes beside the training.
        records: records of the steps, which are written before the checkpoint behind them.
        watchdog: is told that a save may take long.
        log_file: this rank's log, uploaded with each checkpoint.
    """

    cfg: WorkerConfig
    worker: Worker
    manifest: Manifest
    history: History
    state: TrainState
    saver: Saver
    records: RunLog
    watchdog: Watchdog
    log_file: Path

    @collective
    def save_and_report(
        self, scores: Mapping[str, float] | None = None, wait: bool = False
    ) -> None:
        """Write a checkpoint and report it to the cluster.

        Args:
            scores: scores of a validation at this step.
            wait: return when it is durable, as nothing comes after it; otherwise it is written
                beside the training.

        Raises:
            NotFiniteError: as of `RunLog.flush`.
            StorageError: it could not be written, and nothing comes after it; or several in a row
                could not.
        """
        show_progress(self.records, self.cfg.train.max_steps)
        position = self.state.position
        self.watchdog.alive(position.step, long=True)
        scores = dict(scores or {})
        if self.worker.rank == 0:
            info = self._describe(scores)
            self.saver.save(self.state, info, self.cfg.config_yaml, self.records.persist)

        name = checkpoint_name(position.step)
        metrics = self._describe(scores).told
        durable = partial(self._newest_durable, name)
        # on all ranks: Ray Train waits for each rank's report
        self.worker.report_checkpoint(name, metrics, durable, wait)
        self.saver.submit(self._upload_log)
        # rank 0 writes, and so knows; all must stop or continue alike
        problem = broadcast(self.saver.problem(last=wait))
        if problem is not None:
            raise StorageError(problem)

    @collective
    def save_now(self) -> None:
        """Have the present state in a durable checkpoint on return.

        Raises:
            StorageError: it could not be written.
        """
        step = self.state.position.step
        self.saver.wait()  # perhaps for the one of this step
        if not broadcast(self.saver.has(step)):
            self.save_and_report(wait=True)
        self.saver.finish()
        log.info("step %d is saved", step)

    @collective
    def leave(self, notice: Notice) -> None:
        """Save and end: a node leaves or the run grows, and the workers start again, or it stops.

        While the storage fails the run does not grow but continues: steps would be repeated for
        nothing.

        Raises:
            StoppedError: the run is stopped, and is saved.
            StorageError: the run is stopped, and could not be saved.
            PreemptedError: otherwise; always before a node leaves.
        """
        grows = is_growth(notice)
        if grows and broadcast(self.saver.failures):
            return  # until a scheduled checkpoint could be written

        log.warning("step %d: %s: saves now", self.state.position.step, reason(notice))
        try:
            self.save_now()
        except StorageError:
            if is_stop(notice):
                raise
            if grows:
                log.warning("the run will grow once a checkpoint can be written")
                return
            log.warning("the steps since the newest checkpoint will be repeated")
        self.records.close()
        if is_stop(notice):
            raise StoppedError
        raise PreemptedError(notice)

    def close(self) -> None:
        """Wait until everything is written or given up, the log to its last line."""
        self.saver.submit(self._upload_log)
        self.saver.close()

    def _upload_log(self) -> None:
        upload_log(self.log_file, self.cfg.folder)

    def _newest_durable(self, name: str) -> str:
        """Wait for the writing; return the newest durable checkpoint, `name` if there is none."""
        self.saver.wait()
        return checkpoint_name(self.saver.saved[-1]) if self.saver.saved else name

    def _describe(self, scores: dict[str, float]) -> CheckpointInfo:
        return CheckpointInfo(
            position=self.state.position,
            manifest=self.manifest.digest,
            code_version=self.cfg.code_version,
            versions=versions(),
            speakers=self.manifest.speakers,
            world_size=self.worker.world_size,
            scores=scores,
            metrics=self.records.told,
            passed_over=self.state.passed_over,
            history=self.history,
            validations=self.state.validations,
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a run depends on most."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": version("ray"),
    }
