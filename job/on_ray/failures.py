"""When a run is given up: failures are counted from the last progress on, and end in one line."""

import contextlib
import logging
import traceback
from collections.abc import Callable

from ray.exceptions import RayError

from data.files import below, put_file, read_file
from job.on_ray.private import (
    ControllerError,
    FailureConfig,
    FailureDecision,
    ForgivingPolicy,
    TrainingFailedError,
    WorkerGroupError,
    WorkerGroupStartupTimeoutError,
    raised_by_worker,
)
from job.settings.cli import CommandFailedError
from trainable.distributed.faults import PermanentError
from trainable.run.format import DRIVER_LOG, step_of
from trainable.run.storage import checkpoints

log = logging.getLogger("bert_vits2_ray")
# Ray's words on a worker that is gone, in a line of 800 characters, and ours
RAYS_WORDS = "its worker process has died"
DIED = "its process has died: it was killed, perhaps because memory ran out, or has crashed"
FAILURES = (TrainingFailedError, RayError)  # what trainer.fit() raises


class FailuresInARow(ForgivingPolicy):
    """Ray Train's policy for failures, which counts those since the newest checkpoint alone.

    A run of weeks meets many deaths that have nothing to do with each other. Only a run that does
    not get on any more is to be given up.

    Attributes:
        gives_up: the run is being stopped: nothing is started again.
    """

    def __init__(
        self,
        failure_config: FailureConfig,
        newest: Callable[[], int],
        waits: Callable[[], None] = lambda: None,
    ):
        """Begin to count.

        Args:
            failure_config: how many failures in a row are allowed.
            newest: returns the step of the run's newest checkpoint; -1 if it has none.
            waits: is called when the workers found no room in time.
        """
        super().__init__(failure_config)
        self.newest = newest
        self.waits = waits
        self.reached = newest()
        self.gives_up = False

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Return whether the workers are started again."""
        if self.gives_up or permanent_error(training_failed_error) is not None:
            return FailureDecision.RAISE
        if is_no_room(training_failed_error):
            self.waits()
            return FailureDecision.RETRY
        step = self.newest()
        if step > self.reached:
            self.forget()
            self.reached = step
        return super().make_decision(training_failed_error)


def is_no_room(error: BaseException) -> bool:
    """Tell whether the workers were not placed in time; then the cluster is looked at again."""
    return isinstance(error, ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupTimeoutError
    )


def permanent_error(error: BaseException) -> PermanentError | None:
    """Return the error of a worker that would come again in any start; None if there is none.

    When one worker has such an error, the others fail too, but for the lack of an answer. The
    controller raises those that workers meet before their process group is made.
    """
    failures: list[Exception] = []
    if isinstance(error, WorkerGroupError):
        failures = list(error.worker_failures.values())
    elif isinstance(error, ControllerError):
        failures = [error.controller_failure]
    return next(filter(None, map(_permanent, failures)), None)


def _permanent(failure: Exception) -> PermanentError | None:
    raised = raised_by_worker(failure)
    return raised if isinstance(raised, PermanentError) else None


def newest_step(folder: str) -> int:
    """Return the step of a run's newest checkpoint; -1 if there is none, or none can be seen.

    Args:
        folder: folder or URI of the run.
    """
    try:
        found = checkpoints(folder)
    except OSError as error:
        log.warning("the newest checkpoint is not known: %s", error)
        return -1
    return step_of(found[0]) if found else -1


def told_in_a_line(error: BaseException, folder: str) -> Exception:
    """Return what a command raises when `trainer.fit()` has failed; the rest goes to the run's log.

    Args:
        error: what `fit` has raised.
        folder: folder or URI of the run.
    """
    told = where_all_is_told(error, folder)
    step = newest_step(folder)
    stands = f"its newest checkpoint is of step {step}" if step >= 0 else "it has no checkpoint yet"
    if (permanent := permanent_error(error)) is not None:
        # no start would cure it, so nobody is told to start it again as it is
        return CommandFailedError(f"{permanent}. The run is given up, {stands}; {told}")
    return CommandFailedError(
        f"the run has failed: {reason(error)}. {stands[0].upper()}{stands[1:]}, and the same "
        f"command continues from there; {told}"
    )


def reason(error: BaseException) -> str:
    """Return one line on what has ended a run: the last one of the first worker's error."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        rank, of_worker = min(error.worker_failures.items())
        told = _last_line(of_worker)
        return f"rank {rank}: {DIED if RAYS_WORDS in told else told}"
    return _last_line(getattr(error, "controller_failure", error))


def _last_line(error: BaseException) -> str:
    """Return the last line of an error's message, which names the error behind Ray's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def where_all_is_told(error: BaseException, folder: str) -> str:
    """Write an error's traceback to the log of the run's driver; return where it is."""
    path = below(folder, DRIVER_LOG)
    told = "".join(traceback.format_exception(error))
    if (permanent := permanent_error(error)) is not None:
        told += f"\nIn the worker:\n{permanent.traceback}"
    before = b""
    try:
        with contextlib.suppress(FileNotFoundError):
            before = read_file(path)
        put_file(path, before + told.encode())
    except OSError as failed:
        return f"its traceback could not be written ({failed})"
    return f"{path} has the whole traceback"
