"""A training's progress where rank 0 is elsewhere: what it says comes through Ray."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from job.reports.console import console, is_live
from job.reports.progress import LINE, Scores, Terminal, view
from trainable.config import CheckpointConfig

ON_THE_WAY_S = 1.0  # of a line from another machine
# what a training says when it is over: its last page, that it was stopped, or why it has failed
IS_OVER = re.compile(
    r"run .*: step \d+ of \d+$|stopped (at step \d+, saved|before its first)|error: "
)
# what hands each line to a function that tells whether it takes it; and whether the lines that it
# does not take go to standard output, all of them
Taking = Callable[[Callable[[str], bool], bool], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def listen(log: Path, checkpoint: CheckpointConfig, what: str, taking: Taking) -> Iterator[None]:
    """Show what rank 0 says on whichever machine it runs, until the block ends.

    Args:
        log: rank 0's log of earlier starts, as far as this machine has it.
        checkpoint: by which score checkpoints are ranked.
        what: what happens before the workers' first line.
        taking: hands on what the cluster's processes say, within a block.
    """
    shown = view(log, checkpoint, what)

    def take(line: str) -> bool:
        is_of_rank_0 = LINE.fullmatch(line) is not None
        if is_of_rank_0:
            shown.line(line)
        return is_of_rank_0

    try:
        with taking(take, isinstance(shown, Terminal)):
            try:
                yield
            finally:
                time.sleep(ON_THE_WAY_S)
    finally:
        shown.close()


@contextlib.contextmanager
def showing_job(checkpoint: CheckpointConfig | None) -> Iterator[Callable[[str], object]]:
    """Give what shows a job's output, of which it is handed one piece after another.

    Args:
        checkpoint: by which score a training ranks its checkpoints, which then has its two lines
            on a terminal; None: another job, whose output is shown as it is.
    """
    shown = console()
    if checkpoint is None or not is_live(shown):
        yield partial(print, end="", flush=True)
        return
    job = Job(Terminal(shown, Scores(checkpoint), "waiting for the workers"))
    try:
        yield job.say
    finally:
        job.close()


class Job:
    """Shows the output of a training that runs as a job, and its last page below the two lines.

    Args:
        terminal: what shows its lines while it trains.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.trains = True
        self.rest = ""  # of a line that has not ended

    def say(self, piece: str) -> None:
        """Show a piece of the output, which may begin and end anywhere."""
        *lines, self.rest = (self.rest + piece).split("\n")
        for line in lines:
            self.line(line)

    def line(self, line: str) -> None:
        """Show a line."""
        if self.trains and IS_OVER.match(line):
            self.stop()
        if self.trains:
            self.terminal.line(line)
        else:
            print(line, flush=True)

    def stop(self) -> None:
        """Leave the two lines as they stand."""
        self.trains = False
        self.terminal.close()

    def close(self) -> None:
        """Show what is left: the job has ended, or is followed no longer."""
        if self.rest:
            self.line(self.rest)
        if self.trains:
            self.stop()
