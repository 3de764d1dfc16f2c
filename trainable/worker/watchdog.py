"""Hangs: a worker of which no step ends says where it is, and ends, so that Ray Train starts the workers anew.

Every worker watches itself, with a thread beside the training. A worker that waits for another one
reports the collective that it waits in; one that is stuck by itself reports that; one whose process
or node is gone or stopped reports nothing. Put together in a table they show who waits for whom.

The reports lie in the run's folder, `logs/stuck-rank-<r>.txt`, as the workers may no longer be able
to talk.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from data.files import below, put_file, read_file

log = logging.getLogger("bert_vits2_ray")

EXIT_STATUS = 86  # of a worker that ended itself because it hung
LONG = 3  # times the usual limit: a first step, a validation, a checkpoint
COLLECT_S = 15  # for the others' reports: their last steps ended at about the same time
END_WITHIN_S = 60
LINGER_S = 10  # rank 0 ends first, so that its table is written before Ray Train ends the workers
ROOT = Path(__file__).parents[2]  # a virtual environment may lie in it


class Watchdog:
    """Watches the thread that makes it, until it is closed; a context manager."""

    def __init__(
        self,
        folder: str,
        rank: int,
        world_size: int,
        attempt: str,
        limit_s: float,
        step: int = 0,
        end: Callable[[], None] = lambda: os._exit(EXIT_STATUS),
    ):
        """Begin to watch; a first step takes long.

        Args:
            folder: folder or URI of the run.
            rank: of this worker.
            world_size: workers.
            attempt: of this start of the workers, so that reports of an earlier one do not count.
            limit_s: longest time between two signs of life.
            step: where the run stands.
            end: ends the process, once all is written.
        """
        self.folder, self.rank, self.world_size, self.attempt = folder, rank, world_size, attempt
        self.limit_s, self.end = limit_s, end
        self.thread = threading.get_ident()
        self.closed = threading.Event()
        self.alive(step, long=True)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def alive(self, step: int, long: bool = False) -> None:
        """A sign of life of the thread.

        Args:
            step: global steps done.
            long: what follows may take LONG times the usual limit.
        """
        self.sign = (step, time.monotonic(), self.limit_s * (LONG if long else 1))

    def _watch(self) -> None:
        while not self._expired():
            if self.closed.wait(self.limit_s / 10):
                return
        # the store may be what everybody waits for
        backstop = threading.Timer(END_WITHIN_S, self.end)
        backstop.daemon = True
        backstop.start()
        try:
            self._report()
        finally:
            backstop.cancel()
            self.end()

    def _expired(self) -> bool:
        _, since, allowed = self.sign
        return time.monotonic() - since > allowed

    def _report(self) -> None:
        """Say where this worker is, and what the others say."""
        step, since, _ = self.sign
        seconds = time.monotonic() - since
        frame = sys._current_frames()[self.thread]
        where, stack = place(traceback.extract_stack(frame)), "".join(traceback.format_stack(frame))
        own = f"step {step + 1}, in {where}, {seconds:.0f} s"
        log.error("no step has ended for too long (train.hang_timeout_s): %s\n%s", own, stack)
        head = json.dumps({"attempt": self.attempt, "rank": self.rank, "where": own})
        self._write(f"{head}\n\n{stack}")
        table = table_of(self._collect({self.rank: own}), self.world_size)
        log.error(
            "the workers hang and are ended, to start anew from the newest checkpoint:\n%s", table
        )
        self._write(f"{head}\n\n{stack}\n{table}\n")
        for handler in log.handlers:
            handler.flush()
        if self.rank:
            time.sleep(LINGER_S)

    def _write(self, report: str) -> None:
        try:
            put_file(report_uri(self.folder, self.rank), report.encode())
        except OSError as error:
            log.error("the report cannot be written: %s", error)

    def _collect(self, found: dict[int, str]) -> dict[int, str]:
        """The reports of all ranks that give one within COLLECT_S."""
        deadline = time.monotonic() + COLLECT_S
        while len(found) < self.world_size and time.monotonic() < deadline:
            time.sleep(0.5)
            for rank in set(range(self.world_size)) - set(found):
                try:
                    head = json.loads(read_file(report_uri(self.folder, rank)).partition(b"\n")[0])
                except (OSError, ValueError):  # not there yet
                    continue
                if head["attempt"] == self.attempt:
                    found[rank] = head["where"]
        return found


def report_uri(folder: str, rank: int) -> str:
    """Where a rank's report lies."""
    return below(folder, f"logs/stuck-rank-{rank}.txt")


def place(stack: traceback.StackSummary) -> str:
    """Where a thread is: its innermost function of this project, and what that waits in."""
    own = [
        frame
        for frame in stack
        if frame.filename.startswith(f"{ROOT}/") and "site-packages" not in frame.filename
    ]
    innermost = stack[-1].name
    if not own:
        return innermost
    name = f"{Path(own[-1].filename).stem}.{own[-1].name}:{own[-1].lineno}"
    return name if own[-1] is stack[-1] else f"{name} ({innermost})"


def table_of(reports: dict[int, str], world_size: int) -> str:
    """One line a rank."""
    silent = "no report: its process or its node is gone or stopped"
    return "\n".join(f"  rank {rank}: {reports.get(rank, silent)}" for rank in range(world_size))
