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

from job.on_ray.private import (
    TransparentController,
    announce_preemption,
    is_over,
    keep_no_list_of_checkpoints,
)
from job.on_ray.watching.quiet import quieten
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
        self.job = ray.get_runtime_context().get_job_id()
        # the workers do, which also remove checkpoints
        keep_no_list_of_checkpoints()
        super().__init__(**settings)
        quieten()
        threading.Thread(target=self._watch, name="stop", daemon=True).start()

    @ray.method(concurrency_group=STOP)
    async def stop(self) -> None:
        """Have the workers save, and the run end."""
        self.told_to_stop.set()

    def _watch(self) -> None:
        while not self.told_to_stop.wait(LOOK_EVERY_S) and not self._is_orphaned():
            pass

        self.failure_policy.gives_up = True
        if self.workers is None and not self.is_ending:
            # nothing is lost, and the controller may be waiting for resources for ever
            self.scaling_policy.before_controller_abort()
            os._exit(0)
        self._tell_workers()

        # the driver asks for the result and ends this actor; without a driver, nobody does
        while not self._is_orphaned():
            time.sleep(LOOK_EVERY_S)
        os._exit(0)

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
        except ray.exceptions.RayError:
            return False  # the control service restarts


class Signals:
    """SIGINT and SIGTERM of this process, from `catch` until the end of the block.

    While a run trains (`asking`), the first one asks it to stop. Every other one ends the process,
    with the status that shells give to a command that a signal has ended.

    Attributes:
        caught: the signal that has asked the run to stop; None: there was none.
    """

    def __init__(self) -> None:
        self.caught: signal.Signals | None = None
        self.stop: threading.Event | None = None
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        self.catch()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

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
            sys.exit(128 + number)
        self.caught = signal.Signals(number)
        self.stop.set()
