"""Work on one line after the other, in another process, which is replaced when a line ends it."""

import time
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from data.corpus.on_ray.limits import end_process
from data.rejected import Reason, RejectedError


class LineProcess(Protocol):
    """What works on lines there."""

    def load(self, line: pa.Table) -> None:
        """Load what it needs for a line: whatever happens meanwhile is not the line's fault."""

    def __call__(self, line: pa.Table, /) -> Any:
        """Return the result of a line, a table of one row."""


class Apart:
    """Gives lines to a process of their own; one that dies of a line gets it once more, alone.

    Args:
        process: class of LineProcess.
        *args: its arguments.
        limit_s: seconds that a line may take, after which the process ends itself.
        options: of the actor that it becomes.
    """

    def __init__(self, process: type[LineProcess], *args: Any, limit_s: float, **options: Any):
        self.process = process
        self.args = args
        self.limit_s = limit_s
        self.options = options
        self.running: Any = None

    def __call__(self, line: pa.Table) -> Any:
        """Return the result of a line.

        Raises:
            RejectedError: two processes died of it, or it took too long in both.
        """
        try:
            return self._try(line)
        except RejectedError:
            # in a new one, as an earlier line may be at fault
            return self._try(line)

    def _try(self, line: pa.Table) -> Any:
        if self.running is None:
            self.running = self._start()
        self._load(line)
        began = time.monotonic()
        try:
            return ray.get(self.running.__call__.remote(line))
        except (RayActorError, OutOfMemoryError) as error:
            self.running = None
            if time.monotonic() - began >= self.limit_s:
                detail = (
                    f"not done after {self.limit_s:g} s (data.line_timeout_s), also when tried "
                    "alone"
                )
                raise RejectedError(Reason.TIMED_OUT, detail) from error
            detail = "its process died, also when tried alone: a crash, or no memory is left"
            raise RejectedError(Reason.CRASHED, detail) from error

    def _start(self) -> Any:
        options = {"max_restarts": 0, **self.options}
        return ray.remote(self.process).options(**options).remote(*self.args)

    def _load(self, line: pa.Table) -> None:
        try:
            ray.get(self.running.load.remote(line))
        except (RayActorError, OutOfMemoryError):
            # no line's fault: let Ray start this one again, a few times
            end_process()
