"""Limits of a process that works on lines, past which the system ends it."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

BATCH_LIMIT = 2  # a batch of lines may take so many times as long as one line
LINE_MEMORY = 4 << 30  # bytes: a recording of ten minutes needs less than one
TORCH_LACKS_MEMORY = "DefaultCPUAllocator"  # in the message of its RuntimeError


@contextmanager
def time_limit(seconds: float, waits: bool = False) -> Iterator[Callable[[], None]]:
    """End this process if what is inside takes longer, also where it never returns to Python.

    Args:
        seconds: of wall time.
        waits: for a store, which is no fault of a line: seconds are of CPU time.

    Yields:
        What lets the time begin again.
    """
    # the signals of both end a process by default
    timer = signal.ITIMER_PROF if waits else signal.ITIMER_REAL

    def begin() -> None:
        signal.setitimer(timer, seconds)

    begin()
    try:
        yield begin
    finally:
        signal.setitimer(timer, 0)


@contextmanager
def memory_limit() -> Iterator[None]:
    """End this process if what is inside takes too much memory, see `limit_memory`."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory()
    try:
        yield
    except MemoryError:
        end_process()
        raise
    except RuntimeError as error:
        if TORCH_LACKS_MEMORY in str(error):
            end_process()
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def line_limits(seconds: float, device: str = "cpu") -> Iterator[None]:
    """End this process if what is inside takes longer, or too much memory.

    Args:
        seconds: of wall time.
        device: where it is computed; drivers of GPUs reserve what they never take.
    """
    with time_limit(seconds), memory_limit() if device == "cpu" else nullcontext():
        yield


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
