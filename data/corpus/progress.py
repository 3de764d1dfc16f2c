"""How far long work has come and when it will be done: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_EVERY_SECONDS = 30.0


class Progress:
    """Counts items of work.

    Args:
        what: the work.
        total: items in all.
        unit: of an item.
    """

    def __init__(self, what: str, total: int, unit: str = " utterances") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.began = 0, time.monotonic()
        self.said = self.began
        self.bar = (
            tqdm(desc=what, total=total, unit=unit, smoothing=0) if sys.stderr.isatty() else None
        )

    def advance(self, items: int) -> None:
        """Some items more are done."""
        self.done += items
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(items)
        elif now - self.said >= LINE_EVERY_SECONDS and self.done < self.total:
            self.said = now
            print(
                tqdm.format_meter(
                    self.done,
                    self.total,
                    now - self.began,
                    ncols=0,
                    prefix=self.what,
                    unit=self.unit,
                ),
                flush=True,
            )

    def close(self) -> None:
        """Say how long it took."""
        if self.bar is not None:
            self.bar.close()
        seconds = time.monotonic() - self.began
        print(f"{self.what}: {self.done} of {self.total}{self.unit} in {seconds:.1f} s", flush=True)
