"""A terminal in memory: a pseudo-terminal of some columns, whose screen can be read as text."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pyte

GOLDEN = Path(__file__).parent / "golden"
RECORDED = Path(__file__).parent / "recorded.log"
ROWS = 100


class Screen:
    """What a command shows on a terminal, in the end."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.shown = b""

    def read(self, end: int) -> None:
        """Read until nobody writes to the terminal any more."""
        with contextlib.suppress(OSError):  # Linux tells the end so
            while part := os.read(end, 4096):
                self.shown += part

    @property
    def lines(self) -> list[str]:
        """The lines, without what is behind their ends."""
        screen = pyte.Screen(self.columns, ROWS)
        pyte.ByteStream(screen).feed(self.shown)
        return "\n".join(line.rstrip() for line in screen.display).rstrip().split("\n")

    @property
    def masked(self) -> str:
        """The lines with 0 in place of each digit, however many a duration has."""
        lines = (re.sub(r"\d+\.\d s$", "0.0 s", line) for line in self.lines)
        return "".join(re.sub(r"\d", "0", line) + "\n" for line in lines)


@contextlib.contextmanager
def terminal(columns: int) -> Iterator[Screen]:
    """Have standard output and error be a terminal, within the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    screen = Screen(columns)
    reader = threading.Thread(target=screen.read, args=(ours,))
    reader.start()
    environment = {"TERM": "xterm-256color", "COLUMNS": str(columns), "NO_COLOR": ""}
    with (
        os.fdopen(theirs, "w", encoding="utf-8", buffering=1) as stream,
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "stdout", stream),
        mock.patch.object(sys, "stderr", stream),
    ):
        yield screen
    reader.join(timeout=10)
    os.close(ours)


def assert_golden(screen: Screen, name: str) -> None:
    """Compare a screen with what it has been; `UPDATE_GOLDEN=1` writes it instead."""
    path = GOLDEN / f"{name}-{screen.columns}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(screen.masked, encoding="utf-8")
    assert screen.masked == path.read_text(encoding="utf-8")
