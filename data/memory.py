"""What a process does with memory that it frees."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 1 GiB, instead of handing large arrays back to the system at once.

    Having their pages mapped in anew takes a page fault each 4 KiB: 275,000 a training step of the
    full model on a CPU, 7,000 with this (docs/performance.md), and a fifth of a loader's time
    (`python -m benchmarks.pipeline`). For glibc alone; others keep their ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(M_MMAP_THRESHOLD, 1 << 30):
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
