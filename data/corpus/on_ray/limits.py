"""Limits of a process that works on lines, past which the system ends it."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LINE_MEMORY = 4 << 30  # bytes: a recording of ten minutes needs less than one


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process if what is inside takes longer, also where it never returns to Python.

    Args:
        seconds: of wall time.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)  # what SIGALRM does by default
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_memory() -> None:
    """Let this process take LINE_MEMORY more, at most half of what the machine has left."""
    room = min(LINE_MEMORY, _bytes_of("/proc/meminfo", "MemAvailable") // 2)
    # what the limit counts: private memory that the process may write
    soft = _bytes_of("/proc/self/status", "VmData") + room
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _bytes_of(table: str, name: str) -> int:
    """Return an entry of one of the system's tables of kB."""
    entries = Path(table).read_text(encoding="ascii", errors="replace").splitlines()
    (entry,) = (entry for entry in entries if entry.startswith(f"{name}:"))
    return int(entry.split()[1]) * 1024


def end_process() -> None:
    """End this process at once, as the system does."""
    os.kill(os.getpid(), signal.SIGKILL)
