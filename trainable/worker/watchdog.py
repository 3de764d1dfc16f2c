"""Hangs: if no step finishes for too long, the worker logs its stack and exits.

Ray Train then starts the workers again.

Every worker watches itself, with a thread beside the training. A worker that waits for another one
reports the collective that it waits in; one that is stuck by itself reports that; one whose process
or node is gone or stopped reports nothing. Put together in a table they show who waits for whom.

The reports lie in the run's folder, as the workers may no longer be able to talk.
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
from trainable.run.format import stuck_report_name

log = logging.getLogger("bert_vits2_ray")

EXIT_STATUS = 86  # of a worker that exits because it hangs
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
            rank: rank of this worker.
            world_size: number of workers.
            attempt: name of this start of the workers: reports of an earlier one do not count.
            limit_s: longest time between two signs of life.
            step: where the run stands.
            end: ends the process, once all is written.
        """
        self.folder = folder
        self.rank = rank
        self.world_size = world_size
        self.attempt = attempt
        self.limit_s = limit_s
        self.end = end
        self.thread = threading.get_ident()
        self.closed = threading.Event()
        self.alive(step, long=True)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def alive(self, step: int, long: bool = False) -> None:
        """Give a sign of life of the thread.

        Args:
            step: global steps done.
            long: what follows may take LONG times the usual limit.
        """
        allowed = self.limit_s * (LONG if long else 1)
        # one assignment: the other thread sees the old sign or the new one
        self.sign = (step, time.monotonic(), allowed)

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
        """Write where this worker is, and what the others report."""
        step, since, _ = self.sign
        seconds = time.monotonic() - since
        frame = sys._current_frames()[self.thread]
        where = place(traceback.extract_stack(frame))
        stack = "".join(traceback.format_stack(frame))
        own = f"step {step + 1}, in {where}, {seconds:.0f} s"
        log.error("no step has finished within train.hang_timeout_s: %s\n%s", own, stack)

        head = json.dumps({"attempt": self.attempt, "rank": self.rank, "where": own})
        self._write(f"{head}\n\n{stack}")
        table = table_of(self._collect({self.rank: own}), self.world_size)
        log.error(
            "the workers hang; they are ended, and start again from the newest checkpoint:\n%s",
            table,
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
        """Return the reports of all ranks that give one within COLLECT_S.

        Args:
            found: rank -> where it is, as far as it is known; changed in place.
        """
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
    """Return the path or URI of a rank's report."""
    return below(folder, stuck_report_name(rank))


def place(stack: traceback.StackSummary) -> str:
    """Return where a thread is: its innermost function of this project, and what that waits in."""
    innermost = stack[-1]
    own = [frame for frame in stack if _is_ours(frame)]
    if not own:
        return innermost.name
    name = f"{Path(own[-1].filename).stem}.{own[-1].name}:{own[-1].lineno}"
    return name if own[-1] is innermost else f"{name} ({innermost.name})"


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(f"{ROOT}/") and "site-packages" not in frame.filename


def table_of(reports: dict[int, str], world_size: int) -> str:
    """Return one line per rank."""
    silent = "no report: its process or its node is gone or stopped"
    return "\n".join(f"  rank {rank}: {reports.get(rank, silent)}" for rank in range(world_size))
