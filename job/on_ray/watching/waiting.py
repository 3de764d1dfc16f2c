"""What a run says that waits for nodes: a line per minute."""

import time
from collections.abc import Mapping

import ray

EVERY_S = 60.0


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
