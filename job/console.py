"""What commands show: the lines of rank 0's log, as they come, and tables."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def follow(path: Path, every_s: float = 0.5) -> Iterator[None]:
    """Print what is appended to a file, until the block ends."""
    offset = path.stat().st_size if path.exists() else 0
    done = threading.Event()

    def print_new() -> None:
        nonlocal offset
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(offset)
                print(file.read(), end="", flush=True)
                offset = file.tell()

    def watch() -> None:
        while not done.wait(every_s):
            print_new()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print_new()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell, two spaces apart."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
