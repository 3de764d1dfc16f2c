"""Progress of long work: a bar on a terminal, otherwise a line from time to time."""

import sys
import time

from tqdm import tqdm

LINE_EVERY_SECONDS = 30.0


class Progress:
    """Counts finished items.

    Args:
        what: name of the work.
        total: number of items.
        unit: name of an item, with a space before it.
    """

    def __init__(self, what: str, total: int, unit: str = " utterances") -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self.began = time.monotonic()
        self.printed = self.began
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(
                desc=what, total=total, unit=unit, smoothing=0, dynamic_ncols=True, leave=False
            )

    def advance(self, items: int) -> None:
        """Count more finished items, and show them."""
        self.done += items
        if self.bar is not None:
            self.bar.update(items)
            return
        now = time.monotonic()
        if now - self.printed >= LINE_EVERY_SECONDS and self.done < self.total:
            self.printed = now
            print(self._line(now - self.began), flush=True)

    def close(self) -> None:
        """Print how long the work took."""
        if self.bar is not None:
            self.bar.close()
        seconds = time.monotonic() - self.began
        print(f"{self.what}: {self.done} of {self.total}{self.unit} in {seconds:.1f} s", flush=True)

    def _line(self, elapsed: float) -> str:
        return tqdm.format_meter(
            self.done, self.total, elapsed, ncols=0, prefix=self.what, unit=self.unit
        )
