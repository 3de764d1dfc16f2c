"""What commands show: the training's progress, the lines of rank 0's log as they come, and tables."""

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

# of rank 0's log: 2026-11-25 02:23:05,143 rank 0 INFO step 4/40 epoch 0: mel 113.1 ... | 1.74
# s/step, ..., 2 workers
STEP = re.compile(r" rank 0 INFO step (\d+)/(\d+) (epoch .*)")


class Shown:
    """Lines of rank 0's log: on a terminal the steps as one bar with time left, elsewhere all as they are."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.terminal = sys.stdout.isatty()

    def line(self, line: str) -> None:
        """Show a line."""
        if not (self.terminal and (told := STEP.search(line))):
            if self.bar is None:
                print(line, flush=True)
            else:
                self.bar.write(line)  # above the bar
            return
        step, goal, rest = int(told[1]), int(told[2]), told[3]
        if self.bar is None:
            self.bar = tqdm(
                desc="train",
                unit="step",
                initial=step,
                total=goal,
                file=sys.stdout,
                dynamic_ncols=True,
            )
        self.bar.set_postfix_str(rest, refresh=False)
        self.bar.update(step - self.bar.n)  # back, where steps are done again
        self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


@contextlib.contextmanager
def follow(path: Path, every_s: float = 0.5) -> Iterator[None]:
    """Show the lines that are appended to rank 0's log, until the block ends."""
    offset = path.stat().st_size if path.exists() else 0
    done, shown = threading.Event(), Shown()

    def show_new() -> None:
        nonlocal offset
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(offset)
                while (line := file.readline()).endswith("\n"):
                    shown.line(line.rstrip("\n"))
                    offset = file.tell()

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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell, two spaces apart."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
