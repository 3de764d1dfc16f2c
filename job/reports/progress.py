"""A training's progress, by rank 0's lines: two that are redrawn, and tables of scores.

Elsewhere than on a terminal the log's lines are shown as they are, but for details, which stay in
the file.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from job.reports.console import Stage, console, is_live, live, plain
from job.reports.scores import KNOWN
from trainable.config import CheckpointConfig

# 2026-11-25 02:23:05,143 rank 0 INFO step 4/40 epoch 0: mel 113.1 ...
LINE = re.compile(r"(\d+-\d+-\d+ (\d+:\d+:\d+),\d+) rank 0 (DEBUG|INFO|WARNING|ERROR) (.*)")
STEP = re.compile(r"step (\d+)/(\d+) epoch (\d+): (.*) \| (\S+) s/step, (\S+) utterances/s, (\d+) ")
VALIDATION = re.compile(r"step (\d+) validation: (.*)")
SCORE = re.compile(r"eval/(\w+) ([-\d.]+)")
# begin of a line -> the stage that begins with it; a start's first stage is that of the workers
STAGES = {
    "pid ": "making the networks",
    "starts from ": "opening the data",
    "resumes at ": "opening the data",
    "data are open ": "",
}
# of which the two lines tell, or nobody but the file
UNSAID = re.compile(r"pid \d|epoch \d+: \d+ global steps|VITS2?\b.*; parameters |step \d+ of \d+: ")
# what is shorter on a terminal than in the file: the code's digest, names of utterances
SHORTER = re.compile(r"^code \w+; |(?<= utterances): .*")
FIRST = ("mel", "kl", "g", "d")  # losses that are shown however narrow the terminal is
DAY_S = 86400
NARROWEST_BAR, GOOD_BAR = 3, 12
FALLS, RISES = "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"


@dataclass(frozen=True)
class Step:
    """A step, as the log tells it.

    Attributes:
        number: global steps done.
        goal: train.max_steps.
        epoch: its epoch.
        losses: name -> value, as written.
        seconds: seconds per step, as written.
        rate: utterances per second, as written.
        workers: how many trained it.
        time: when the line was written, in seconds.
    """

    number: int
    goal: int
    epoch: int
    losses: dict[str, str]
    seconds: str
    rate: str
    workers: int
    time: float

    def left_s(self, first: "Step") -> float:
        """Return the seconds until the goal, by the pace since the first step of this start."""
        done = self.number - first.number
        pace = (self.time - first.time) / done if done > 0 else float(self.seconds)
        return pace * (self.goal - self.number)


class Scores:
    """The validations of a run, and which of them is the best.

    Args:
        checkpoint: by which score checkpoints are ranked.
    """

    def __init__(self, checkpoint: CheckpointConfig) -> None:
        self.checkpoint = checkpoint
        self.found: dict[int, dict[str, float]] = {}  # step -> tag without eval/ -> score

    def add(self, step: int, told: str) -> None:
        """Remember a validation; a run that went back has not had the later ones."""
        self.found = {old: scores for old, scores in self.found.items() if old < step}
        self.found[step] = {name: float(value) for name, value in SCORE.findall(told)}

    def best(self) -> str:
        """Return the best score so far, and its step; nothing before the first validation."""
        name = self.checkpoint.metric.removeprefix("eval/")
        steps = [step for step, scores in self.found.items() if name in scores]
        if not steps:
            return ""
        best = min(steps, key=lambda step: self.cost(name, self.found[step][name]))
        return f"best {self.checkpoint.metric} {self.found[best][name]:.4f} at {best:,}"

    def cost(self, name: str, score: float) -> float:
        """Return a score as a number of which smaller is better."""
        if name in KNOWN and (ideal := KNOWN[name].ideal):
            return abs(score - ideal)
        is_ranked = f"eval/{name}" == self.checkpoint.metric
        return -score if is_ranked and self.checkpoint.larger_is_better else score

    def table(self) -> Table:
        """Return the newest validation beside the last one and the best of those before it."""
        *before, step = self.found
        now = self.found[step]
        names = [name for name in now if not name.startswith(("train_", "ema_"))]
        names = [name for name in names if not name.endswith("_sdp")]
        others = {
            "sdp": {name: now.get(f"{name}_sdp") for name in names},
            "training": {name: now.get(f"train_{name}") for name in names},
            "ema": {name: now.get(f"ema_{name}") for name in names},
        }
        others = {head: cells for head, cells in others.items() if any(cells.values())}

        made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        made.add_column(f"validation at {step:,}", no_wrap=True)
        for head in ("now", "last", "best", *others):
            made.add_column(head, justify="right", no_wrap=True)
        for name in names:
            earlier = [self.found[old][name] for old in before if name in self.found[old]]
            best = min(earlier, key=partial(self.cost, name), default=None)
            compared = (*earlier[-1:], best) if earlier else (None, None)
            cells = [self._compared(name, now[name], other) for other in compared]
            beside = [_number(others[head][name]) for head in others]
            made.add_row(f"  {name}", _number(now[name]), *cells, *beside)
        return made

    def _compared(self, name: str, now: float, other: float | None) -> Text:
        """Return an earlier score, with an arrow that tells how the score has moved since."""
        if other is None or now == other:
            return Text(_number(other))
        arrow = FALLS if now < other else RISES
        ranked = self.checkpoint.metric == f"eval/{name}"
        style = ""
        if ranked or name in KNOWN:
            style = "green" if self.cost(name, now) < self.cost(name, other) else "red"
        return Text.assemble((arrow, style), f" {_number(other)}")


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def two_lines(step: Step, first: Step, best: str, columns: int) -> list[str]:
    """Return a step in two lines, each exactly as wide as the terminal.

    Args:
        step: the newest step.
        first: the first step since the workers' start.
        best: the best score so far.
        columns: width of the terminal.
    """
    return [_pace(step, first, columns), _losses(step, best, columns)]


def _pace(step: Step, first: Step, columns: int) -> str:
    share = step.number / step.goal
    workers = f"{step.workers} worker{'s' if step.workers != 1 else ''}"
    # the last ones go first where it is narrow
    parts = [
        f"{int(100 * share):3d} %",
        f"{clock(step.left_s(first))} left",
        f"{step.seconds} s/step",
        f"{step.rate} utterances/s",
        workers,
    ]
    begin = f"step {step.number:,}/{step.goal:,}"

    def room() -> int:
        return columns - len(begin) - sum(len(part) + 2 for part in parts)

    if room() < GOOD_BAR:
        parts[3] = f"{step.rate} utt/s"
    while parts and room() < 0:
        parts.pop()
    bar = _bar(share, room())
    return "  ".join([begin + bar, *parts])[:columns]


def _bar(share: float, columns: int) -> str:
    """Return a bar with two spaces before it, or spaces where there is no room for one."""
    length = columns - 2
    if length < NARROWEST_BAR:
        return " " * max(0, columns)
    done = int(length * share)
    heavy, light = "\N{BOX DRAWINGS HEAVY HORIZONTAL}", "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    return f"  {heavy * done}{light * (length - done)}"


def _losses(step: Step, best: str, columns: int) -> str:
    """Return the losses on the left, and the best score on the right."""
    told = f"epoch {step.epoch}"
    names = [*(name for name in FIRST if name in step.losses), *step.losses]
    for name in dict.fromkeys(names):
        more = f"{told}  {name} {step.losses[name]}"
        if len(more) + 2 + len(best) > columns:
            break
        told = more
    return f"{told}{best.rjust(max(0, columns - len(told)))}"[:columns]


def clock(seconds: float) -> str:
    """Return a duration: h:mm:ss, or days and hours."""
    days, rest = divmod(round(seconds), DAY_S)
    if days:
        return f"{days} d {rest // 3600} h"
    return f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"


class Terminal:
    """Shows a training on a terminal: stages, then two lines that are redrawn, events above them.

    Args:
        shown: the terminal.
        scores: the run's validations so far.
        what: what happens before the workers' first line.
    """

    def __init__(self, shown: Console, scores: Scores, what: str) -> None:
        self.shown = shown
        self.scores = scores
        self.stage: Stage | None = Stage(what)
        self.step: Step | None = None
        self.first: Step | None = None
        self.live = live(shown, self)
        self.live.start()

    def __rich__(self) -> Text | Stage:
        """Return what is redrawn."""
        if self.stage is not None:
            return self.stage
        if self.step is None or self.first is None:
            return Text("")
        lines = two_lines(self.step, self.first, self.scores.best(), self.shown.width)
        return Text(plain("\n".join(lines), self.shown), no_wrap=True, overflow="crop")

    def line(self, line: str) -> None:
        """Show a line of the log."""
        found = LINE.fullmatch(line)
        if found is None:  # of several lines
            self.say(line)
            return
        written, clock_time, level, told = found.groups()
        self.enter_stage(told)
        if step := STEP.match(told):
            self.advance(step, datetime.strptime(written, "%Y-%m-%d %H:%M:%S,%f").timestamp())
        elif validation := VALIDATION.match(told):
            self.scores.add(int(validation[1]), validation[2])
            self.shown.print(self.scores.table())
        elif level != "DEBUG" and not UNSAID.match(told):
            about = "" if level == "INFO" else f"{level.lower()}: "
            self.say(f"{clock_time} {about}{SHORTER.sub('', told)}", level)

    def say(self, text: str, level: str = "INFO") -> None:
        """Print a line above the others."""
        style = {"WARNING": "yellow", "ERROR": "red"}.get(level, "")
        self.shown.print(Text(plain(text, self.shown), style=style), soft_wrap=False)

    def enter_stage(self, told: str) -> None:
        """End a stage with a line that begins the next one."""
        began = next((begin for begin in STAGES if told.startswith(begin)), None)
        is_step = STEP.match(told) is not None
        if began is None and not (is_step and self.stage is not None):
            return
        if self.stage is not None:
            self.say(self.stage.done())
        what = STAGES[began] if began is not None else ""
        self.stage = Stage(what or "the first steps") if not is_step else None
        if began == "pid ":
            self.first = None

    def advance(self, found: re.Match[str], time: float) -> None:
        """Show a step."""
        number, goal, epoch, losses, seconds, rate, workers = found.groups()
        values = dict(zip(losses.split()[::2], losses.split()[1::2], strict=True))
        self.step = Step(
            int(number), int(goal), int(epoch), values, seconds, rate, int(workers), time
        )
        # backwards if steps are done again
        if self.first is None or self.step.number < self.first.number:
            self.first = self.step
        self.live.refresh()

    def close(self) -> None:
        """Leave the two lines as they stand."""
        self.live.stop()
        if self.step is not None and self.first is not None:
            lines = two_lines(self.step, self.first, self.scores.best(), self.shown.width)
            self.say("\n".join(lines))


class Plain:
    """Shows a training elsewhere: the lines of the log, without its details."""

    def line(self, line: str) -> None:
        """Show a line of the log."""
        if " rank 0 DEBUG " not in line:
            print(line, flush=True)

    def close(self) -> None:
        """Be done."""


def view(log: Path, checkpoint: CheckpointConfig, what: str) -> Terminal | Plain:
    """Return what shows a training here.

    Args:
        log: rank 0's log of earlier starts, from which earlier validations are known.
        checkpoint: by which score checkpoints are ranked.
        what: what happens before the workers' first line.
    """
    shown = console()
    if not is_live(shown):
        print(f"{what} ...", flush=True)
        return Plain()
    scores = Scores(checkpoint)
    if log.exists():
        for step, told in _validations(log):
            scores.add(step, told)
    return Terminal(shown, scores, what)


def _validations(log: Path) -> Iterator[tuple[int, str]]:
    with log.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            found = LINE.match(line)
            if found is not None and (validation := VALIDATION.match(found[4])):
                yield int(validation[1]), validation[2]


@contextlib.contextmanager
def follow(
    path: Path, checkpoint: CheckpointConfig, what: str, every_s: float = 0.5
) -> Iterator[None]:
    """Show what is appended to rank 0's log, until the block ends.

    Args:
        path: the log, which may not exist yet.
        checkpoint: by which score checkpoints are ranked.
        what: what happens before the workers' first line.
        every_s: seconds between looks.
    """
    offset = path.stat().st_size if path.exists() else 0
    done = threading.Event()
    shown = view(path, checkpoint, what)

    def show_new() -> None:
        nonlocal offset
        offset = _show_from(path, offset, shown.line)

    def watch() -> None:
        while not done.wait(every_s):
            show_new()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        show_new()
        shown.close()


def _show_from(path: Path, offset: int, show: Callable[[str], None]) -> int:
    """Show the whole lines of a file from an offset on; return the offset behind them."""
    if not path.exists():
        return offset
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(offset)
        # a line without its end is still being written
        while (line := file.readline()).endswith("\n"):
            show(line.rstrip("\n"))
            offset = file.tell()
    return offset
