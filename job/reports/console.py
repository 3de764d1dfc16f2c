"""What all commands show on the console: stages with their seconds, and tables."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from rich.console import Console
from rich.live import Live
from rich.text import Text

LOOKS_PER_S = 4  # at how long a stage takes
DONE, GOES_ON = "\N{CHECK MARK}", "\N{BULLET}"


def console() -> Console:
    """Return standard output as rich sees it: whether it is a terminal, how wide, which colours."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def is_live(shown: Console) -> bool:
    """Tell whether lines can be redrawn: on a terminal that moves its cursor."""
    return shown.is_terminal and not shown.is_dumb_terminal


def columns() -> float:
    """Return how wide lines may be: elsewhere than on a terminal, as wide as they want to."""
    shown = console()
    return shown.width if shown.is_terminal else math.inf


def plain(text: str, shown: Console) -> str:
    """Return a text with ASCII for the signs that the terminal's encoding does not have."""
    if shown.encoding.lower().startswith("utf"):
        return text
    for sign, instead in SIGNS.items():
        text = text.replace(sign, instead)
    return text


SIGNS = {
    DONE: "+",
    GOES_ON: "-",
    "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "#",
    "\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-",
    "\N{DOWNWARDS ARROW}": "v",
    "\N{UPWARDS ARROW}": "^",
}


class Stage:
    """Something that takes a while, with the seconds that it has taken.

    Attributes:
        what: what is being done.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.began = time.monotonic()

    def __rich__(self) -> Text:
        """Return the line of a stage that goes on."""
        return Text(f"{GOES_ON} {self.what} ... {self.seconds:.0f} s", no_wrap=True)

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def done(self) -> str:
        """Return the line of a stage that has ended."""
        return f"{DONE} {self.what}: {self.seconds:.1f} s"


@contextlib.contextmanager
def stage(what: str) -> Iterator[None]:
    """Show from the beginning of the block what it does, and at its end how long it took.

    Args:
        what: what is being done, such as `starting Ray`.
    """
    shown = console()
    current = Stage(what)
    if is_live(shown):
        with live(shown, current):
            yield
        shown.print(plain(current.done(), shown))
        return
    print(f"{what} ...", flush=True)
    yield
    print(f"{what}: {current.seconds:.1f} s", flush=True)


@contextlib.contextmanager
def starting(what: str, session: AbstractContextManager[None]) -> Iterator[None]:
    """Enter a session, such as Ray's, as a stage.

    Args:
        what: what is being done.
        session: what is entered, and left at the end of the block.
    """
    with contextlib.ExitStack() as stack:
        with stage(what):
            stack.enter_context(session)
        yield


def live(shown: Console, content: object) -> Live:
    """Return a region at the end of the terminal that is redrawn, and vanishes at its end."""
    return Live(
        content,  # type: ignore[arg-type]  # anything with __rich__
        console=shown,
        refresh_per_second=LOOKS_PER_S,
        transient=True,
        redirect_stderr=False,  # a session of Ray's puts a stream of its own there
    )


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
