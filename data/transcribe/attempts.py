"""How often a run has begun with something that may end its process, such as by its memory.

Ray starts a process again that has died, and gives it the same work. A mark tells the next one.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from data.files import below, put_file, read_file, remove_file

MOST = 2


class DiedError(Exception):
    """Processes of this run have died of something, MOST times."""


class Attempts:
    """The marks of a run.

    Args:
        out: folder or URI of the transcription.
        run: name of this run: those of others do not count, as a user may have ended them.
    """

    def __init__(self, out: str, run: str) -> None:
        self.out = out
        self.run = run

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Begin with something that is done inside, and end it. Raises: see `begin`."""
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    def begin(self, name: str) -> None:
        """Begin with something; `end` tells that it ended, with whatever result.

        Raises:
            DiedError: it has been begun MOST times, and never ended.
        """
        mark = self._mark(name)
        begun = self._count(mark)
        if begun == MOST:
            remove_file(mark)
            raise DiedError(
                f"its process died {MOST} times: a crash, no memory is left, or it takes longer "
                "than data.line_timeout_s allows"
            )
        put_file(mark, f"{self.run} {begun + 1}".encode())

    def end(self, name: str) -> None:
        """Take the mark away."""
        remove_file(self._mark(name))

    def _mark(self, name: str) -> str:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
        return below(self.out, f"journal/{digest[:16]}")

    def _count(self, mark: str) -> int:
        try:
            run, _, count = read_file(mark).decode().partition(" ")
        except FileNotFoundError:
            return 0
        return int(count) if run == self.run else 0
