"""What commands show on the console: a training's progress and log, and tables."""

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

# a step in rank 0's log: 2026-11-25 02:23:05,143 rank 0 INFO step 4/40 epoch 0: mel 113.1 ...
STEP = re.compile(r" rank 0 INFO step (\d+)/(\d+) (epoch .*)")


class Shown:
    """Shows lines of rank 0's log: on a terminal steps as a bar with the time left, else all."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.terminal = sys.stdout.isatty()

    def line(self, line: str) -> None:
        """Show a line."""
        found = STEP.search(line) if self.terminal else None
        if found is not None:
            self._advance(int(found[1]), int(found[2]), found[3])
        elif self.bar is not None:
            self.bar.write(line)  # above the bar
        else:
            print(line, flush=True)

    def _advance(self, step: int, goal: int, text: str) -> None:
        """Move the bar to a step, with a text after it."""
        if self.bar is None:
            self.bar = tqdm(
                desc="train",
                unit="step",
                initial=step,
                total=goal,
                file=sys.stdout,
                dynamic_ncols=True,
            )
        self.bar.set_postfix_str(text, refresh=False)
        # backwards if steps are done again
        self.bar.update(step - self.bar.n)
        self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


@contextlib.contextmanager
def follow(path: Path, every_s: float = 0.5) -> Iterator[None]:
    """Show the lines that are appended to rank 0's log, until the block ends.

    Args:
        path: the log, which may not exist yet.
        every_s: seconds between looks.
    """
    offset = path.stat().st_size if path.exists() else 0
    done = threading.Event()
    shown = Shown()

    def show_new() -> None:
        nonlocal offset
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            file.seek(offset)
            # a line without its end is still being written
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align_right: bool = False) -> str:
    """Return columns as wide as their longest cell, two spaces apart.

    Args:
        head: titles of the columns.
        rows: cells of each row.
        align_right: whether all columns but the first are aligned on the right, as numbers are.
    """
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rest = str.rjust if align_right else str.ljust
    align = [str.ljust, *[rest] * (len(widths) - 1)]

    def shown(line: Sequence[str]) -> str:
        cells = [put(cell, width) for put, cell, width in zip(align, line, widths, strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join(map(shown, lines))


def cell(value: float | None, form: str = ".4f") -> str:
    """Return a number as text; `-` for None."""
    return "-" if value is None else format(value, form)
