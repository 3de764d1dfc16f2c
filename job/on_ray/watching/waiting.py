"""What a run's controller shows: waiting for nodes is a line per minute, no change is none."""

import logging
import time
from collections.abc import Mapping

import ray

from job.on_ray.private import WorkerGroupStartupTimeoutError

EVERY_S = 60.0
# Beginnings of what Ray Train's controller says -> why it is not shown. Its files in the folder of
# Ray's session have it all.
MEANS_NOTHING = {
    "Did not detect any changes in the cluster resources": "nothing has changed",
    "Detected ready resources for": "`Waiting` says what is missing; a start has a line of its own",
    "Failed to send resource request for": "is sent again within seconds, without harm",
}
ATTEMPT = "Attempting to start training worker group of size"  # once per look at the cluster


class Waiting:
    """Tells once per minute that a run waits for nodes, and what they lack."""

    def __init__(self, workers: int, per_worker: Mapping[str, float]):
        """Begin to wait.

        Args:
            workers: how many must have room before the run starts.
            per_worker: resource -> amount that each of them takes.
        """
        self.workers = workers
        self.needed = {name: workers * amount for name, amount in per_worker.items() if amount}
        self.last = -EVERY_S

    def tell(self) -> None:
        """Print a line, unless the last one is not a minute old."""
        now = time.monotonic()
        if now - self.last < EVERY_S:
            return
        self.last = now
        print(
            f"waiting for nodes: {self.workers} workers take {_amounts(self.needed)}, missing: "
            f"{self._missing()} (`ray status` shows what is coming)",
            flush=True,
        )

    def _missing(self) -> str:
        try:
            free = ray.available_resources()
        except ray.exceptions.RayError:
            return "an answer of the cluster"
        missing = {name: n - free.get(name, 0) for name, n in self.needed.items()}
        lacks = {name: n for name, n in missing.items() if n > 0}
        return _amounts(lacks) if lacks else "a node with room for a whole worker"


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


class Quiet(logging.Filter):
    """Holds back what means nothing: repetitions, and the traceback of a start that has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.attempt = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is shown."""
        if record.exc_info and isinstance(record.exc_info[1], WorkerGroupStartupTimeoutError):
            return False
        told = record.getMessage()
        if told.startswith(ATTEMPT):
            repeated, self.attempt = told == self.attempt, told
            return not repeated
        return not told.startswith(tuple(MEANS_NOTHING))


def quieten() -> None:
    """Have Ray Train's controller, which lives in this process, show what means something."""
    quiet = Quiet()
    for handler in logging.getLogger("ray.train").handlers:
        if isinstance(handler, logging.StreamHandler):  # the others write Ray's own files
            handler.addFilter(quiet)
