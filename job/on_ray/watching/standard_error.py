"""Lines that Ray's compiled part prints in red on a command's standard error, and mean nothing.

It writes to the file descriptor, past Python's logging, and has no switch for a single line.
"""

import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Iterator

from job.on_ray.watching.quiet import MEANS_NOTHING_IN_A_LINE

SAYS_NOTHING = re.compile(MEANS_NOTHING_IN_A_LINE.pattern.encode())
STDERR = 2
AT_A_TIME = 65536  # bytes


@contextlib.contextmanager
def quiet_standard_error() -> Iterator[None]:
    """Hold back, within the block, the lines that mean nothing; pass on all others at once."""
    sys.stderr.flush()
    real = os.dup(STDERR)
    read, write = os.pipe()
    os.dup2(write, STDERR)
    os.close(write)
    passing = threading.Thread(target=_pass_on, args=(read, os.dup(real)), daemon=True)
    passing.start()
    # Python's own lines need no look, and bars want to see the terminal
    before = sys.stderr
    if is_standard(before):
        # a line at a time: the thread's own lines may come between
        raw = io.BufferedWriter(io.FileIO(real, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(
            raw, encoding=before.encoding, errors=before.errors, line_buffering=True
        )
    try:
        yield
    finally:
        if is_standard(before):
            sys.stderr.flush()
            sys.stderr = before
        os.dup2(real, STDERR)  # closes the pipe's end
        passing.join(timeout=5)  # a child that has it still may hold it open
        os.close(real)


def is_standard(stream: object) -> bool:
    """Tell whether a stream writes to the descriptor, and not to a test's buffer."""
    try:
        return stream.fileno() == STDERR  # type: ignore[attr-defined]
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False


def _pass_on(source: int, target: int) -> None:
    """Copy the lines that mean something, until nobody writes any more; close both ends."""
    rest = b""
    with io.FileIO(source) as lines, io.FileIO(target, "w") as shown:
        while chunk := lines.read(AT_A_TIME):
            *whole, rest = (rest + chunk).split(b"\n")
            shown.write(b"".join(line + b"\n" for line in whole if not SAYS_NOTHING.search(line)))
        shown.write(rest)
