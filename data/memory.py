"""What a process does with memory that it frees."""

import ctypes

import pyarrow as pa

KEPT_BYTES = 1 << 30
# parameters of mallopt, as in malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 1 GiB, for its next large arrays.

    Otherwise they are handed back to the system at once, and mapping their pages in again takes a
    page fault per 4 KiB: 275,000 per training step of the full model on a CPU, 7,000 with this
    (docs/performance.md), and a fifth of a loader's time (`python -m benchmarks.pipeline`). Only
    glibc can do it; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if mallopt(M_MMAP_THRESHOLD, KEPT_BYTES):
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Hand what this process has freed back to the system; of the allocators, glibc's can do it."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
