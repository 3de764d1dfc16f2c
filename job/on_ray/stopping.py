"""How a run is stopped: its workers save within a step, leave, and give their resources back.

A signal to the driver stops it (`Signals`), and so does the driver's death. `ray job stop` sends
SIGTERM, and three seconds later SIGKILL: no driver is sure to see the end of a step. So the
controller, which has started the workers, is detached: it outlives the driver by the time that the
workers need to save (`Controller`).
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayError

from job.on_ray.private import TransparentController, announce_preemption, is_over
from trainable.worker.preemption import stop_notice

# growing and stopping can wait: workers that have not saved by then are ended nevertheless
SAVE_WITHIN_S = 1800
LOOK_EVERY_S = 0.5  # at the driver, by the controller
STOP = "stop"
CONCURRENCY = {STOP: 1}  # a thread of its own, as the controller's may wait for resources
CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Controller(TransparentController):
    """Ray Train's controller, which ends the run in good order when it is told or its driver dies.

    The workers get a notice, as if their nodes were leaving. They save, and return instead of
    waiting for another start.
    """

    def __init__(self, **settings: Any):
        self.told_to_stop = threading.Event()
        self.to_save = False
        self.job = ray.get_runtime_context().get_job_id()
        super().__init__(**settings)
        threading.Thread(target=self._watch, name="stop", daemon=True).start()

    @ray.method(concurrency_group=STOP)
    async def stop(self) -> bool:
        """Have the workers save, and the run end; return False if there are none to wait for.

        Then nothing is lost if the driver ends this actor, which may wait for resources for ever.
        """
        self._look()
        return self.to_save

    def _watch(self) -> None:
        while not self.told_to_stop.wait(LOOK_EVERY_S):
            if self._is_orphaned():
                self._look()
        if self.to_save:
            self._tell_workers()

        # a driver asks for the result and ends this actor; without a driver, nobody does
        while not self._is_orphaned():
            time.sleep(LOOK_EVERY_S)
        if not self.has_ended:
            self.scaling_policy.before_controller_abort()
        os._exit(0)

    def _look(self) -> None:
        """Have the run end, and see whether there are workers that have something to save."""
        self.failure_policy.gives_up = True
        self.to_save = self.workers is not None or self.is_ending
        self.told_to_stop.set()

    def _tell_workers(self) -> None:
        """Give the workers notice, until the run has ended."""
        told = None
        while not self.has_ended:
            workers = self.workers
            if workers is not None and workers is not told:
                announce_preemption(workers, stop_notice(SAVE_WITHIN_S))
                told = workers
            time.sleep(LOOK_EVERY_S)

    def _is_orphaned(self) -> bool:
        try:
            return is_over(self.job)
        except RayError:
            return False  # the control service restarts


def is_answered_no(answer: ray.ObjectRef) -> bool:
    """Tell whether `Controller.stop` has answered by now, and has no workers to wait for."""
    return bool(ray.wait([answer], timeout=0)[0]) and not ray.get(answer)


class NothingToSaveError(RayError):
    """Ends the wait for a run that is stopped before it has workers."""


class Signals:
    """SIGINT and SIGTERM of this process, from `catch` until the end of the block.

    While a run trains (`asking`), the first one asks it to stop. Every other one ends the process,
    with the status that shells give to a command that a signal has ended.

    Attributes:
        caught: the signal that has asked the run to stop; None: there was none.
        ended: the signal that has ended the process; None: there was none.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self.ended: int | None = None
        self.stop: threading.Event | None = None
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        self.catch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        # Ray, within which the signal may have come, makes 1 of its status
        if kind is SystemExit and self.ended is not None:
            sys.exit(128 + self.ended)

    def catch(self) -> None:
        """Handle the signals from now on: Ray, when it starts, takes SIGTERM for itself."""
        # only the main thread may: a trial of a sweep has its training in another one
        if threading.current_thread() is not threading.main_thread():
            return
        for number in CAUGHT:
            before = signal.signal(number, self._handle)
            self.before.setdefault(number, before)

    @contextlib.contextmanager
    def asking(self, stop: threading.Event) -> Iterator[None]:
        """Set `stop` at the first signal within the block, instead of ending the process."""
        self.stop = stop
        try:
            yield
        finally:
            self.stop = None

    @property
    def status(self) -> int:
        """Exit status of a command that the signal caught has stopped."""
        assert self.caught is not None
        return 128 + self.caught

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.stop is None or self.caught is not None:
            # no print: the signal may have come in the midst of one
            os.write(sys.stderr.fileno(), b"ended at once\n")
            self.ended = number
            sys.exit(128 + number)
        self.caught = signal.Signals(number)
        self.stop.set()
