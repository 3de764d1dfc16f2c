"""A training run on a local cluster, as seen from outside: its driver, log and metrics."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tools.local_cluster import LocalCluster

DEMO = "job/presets/demo.yaml"
# kind -> pattern of a line of rank 0's log
KINDS = {
    "start": r"pid (?P<pid>\d+) on ",
    "resume": r"(?:resumes at step (?P<step>\d+) from|starts from)",
    "step": r"step (?P<step>\d+)/\d+ .* (?P<workers>\d+) workers",
    "saved": r"step (?P<step>\d+) is saved",
    "done": r"step (?P<step>\d+) of \d+: done; parameters (?P<parameters>[0-9a-f]{64})",
}


@dataclass(frozen=True)
class Event:
    """A line of rank 0's log.

    Attributes:
        time: seconds since the epoch.
        kind: a key of KINDS.
        step: global step; 0 if the line has none.
        workers: number of workers; 0 if the line does not have it.
        text: the line without its time.
    """

    time: float
    kind: str
    step: int
    workers: int
    text: str


class ClusterRun:
    """`python -m job.train` on a cluster; a context manager that ends what it started."""

    def __init__(self, cluster: LocalCluster, root: Path, name: str, options: dict[str, Any]):
        """Prepare to start.

        Args:
            cluster: where it runs; workers take one `trainer` each.
            root: folder of shards and runs.
            name: name of the run.
            options: dotted keys over the demo preset.
        """
        base = {
            "data.shards": root / "shards",
            "run.storage": root / "runs",
            "run.name": name,
            "scaling.worker_resources": '{"trainer": 1}',
            "train.log_every_steps": 1,
        }
        self.cluster = cluster
        self.folder = root / "runs" / name
        self.options = base | options
        self.output = root / f"{name}.driver.log"
        self.driver: subprocess.Popen | None = None

    def __enter__(self) -> "ClusterRun":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_driver()

    def start(self) -> None:
        """Start the driver; a run of this name continues."""
        argv = [sys.executable, "-m", "job.train", *self.arguments()]
        self.driver = self.cluster.start(argv, self.output)

    def arguments(self) -> list[str]:
        """Return the arguments of job.train."""
        own = [part for key, value in self.options.items() for part in (f"--{key}", str(value))]
        return ["--config", DEMO, *own]

    def kill_driver(self) -> None:
        """SIGKILL the driver if it still runs; Ray ends what it had started."""
        assert self.driver is not None
        if self.driver.poll() is None:
            self.driver.send_signal(signal.SIGKILL)
        self.driver.wait()

    def finish(self, timeout: float = 280) -> None:
        """Wait until the driver has ended.

        Raises:
            RuntimeError: it failed; with the end of its output.
        """
        assert self.driver is not None
        if self.driver.wait(timeout):
            raise RuntimeError(
                f"the run failed:\n{self.output.read_text(encoding='utf-8')[-4000:]}"
            )

    def events(self) -> list[Event]:
        """Return the events in rank 0's log, in order."""
        path = self.folder / "logs" / "rank-0.log"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [event for line in lines for event in _events(line)]

    def last_step(self) -> int:
        """Return the last global step that was logged."""
        return next((e.step for e in reversed(self.events()) if e.kind == "step"), 0)

    def wait_for(self, step: int, timeout: float = 200) -> None:
        """Wait until a step at or after `step` has been logged."""
        self._wait(lambda: self.last_step() >= step, f"step {step}", timeout)

    def wait_for_workers(self, workers: int, timeout: float = 200) -> None:
        """Wait until the last logged step was made by so many workers."""

        def reached() -> bool:
            last = next((e for e in reversed(self.events()) if e.kind in ("start", "step")), None)
            return last is not None and last.kind == "step" and last.workers == workers

        self._wait(reached, f"{workers} workers", timeout)

    def parameters(self) -> str:
        """Return the digest of all parameters at the run's end."""
        done = [e for e in self.events() if e.kind == "done"][-1]
        return done.text.rsplit(" ", 1)[1]

    def losses(self) -> list[dict[str, Any]]:
        """Return what of every step no disturbance may change: losses, norms, utterances."""
        text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        keys = ("step", "epoch", "consumed", "utterances")
        return [
            {k: v for k, v in line.items() if k in keys or k.startswith(("loss/", "grad_norm"))}
            for line in lines
        ]

    def _wait(self, reached: Callable[[], bool], what: str, timeout: float) -> None:
        assert self.driver is not None
        deadline = time.monotonic() + timeout
        while not reached():
            problem = ""
            if self.driver.poll() is not None:
                problem = f"the driver ended before {what}"
            elif time.monotonic() > deadline:
                problem = f"no {what} after {timeout} s"
            if problem:
                raise RuntimeError(f"{problem}:\n{self.output.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.1)


def _events(line: str) -> Iterator[Event]:
    """Yield the events that a line of rank 0's log tells of."""
    stamp, _, text = line.partition(" rank 0 ")
    for kind, pattern in KINDS.items():
        if match := re.search(pattern, text):
            found = match.groupdict()
            step = int(found.get("step") or 0)
            workers = int(found.get("workers") or 0)
            when = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp()
            yield Event(when, kind, step, workers, text)
