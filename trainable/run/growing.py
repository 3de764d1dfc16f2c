"""Files that grow during a run, on disks that fill up and in object stores that cannot append."""

import time
from collections.abc import Callable
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from data.files import below, located, put_file

PART_EVERY_S = 30.0
PART_BYTES = 32 * 2**20  # a part is written again with all that it has: its half, on average


class GrowingFile:
    """A file that grows: one file on a local disk, parts in an object store, which cannot append.

    The last part is written again, longer, every half minute; at PART_BYTES the next one begins. So
    a run of weeks leaves some dozens. What cannot be written is kept and comes with what follows;
    half a line is never left behind.
    """

    def __init__(self, folder: str, path: str, part: Callable[[str], str], head: bytes = b""):
        """Remember the places; nothing is written yet.

        Args:
            folder: folder or URI of the run.
            path: path of the file below `folder`, on a local disk.
            part: label -> path of the part that begins with content of this label, in an object
                store.
            head: begins the file, and every part.
        """
        fs, root = located(folder)
        self.local = Path(root, path) if isinstance(fs, LocalFileSystem) else None
        self.folder = folder
        self.part = part
        self.head = head

        # not written yet, with the label of its first piece
        self.held = b""
        self.label = ""
        self.due = 0.0
        # the part that grows: its path, and what it holds
        self.open_part = ""
        self.written = b""

    def append(self, content: bytes, label: str = "") -> None:
        """Write content; in an object store together with what comes within half a minute.

        Raises:
            OSError: it could not be written, and is kept.
        """
        if not self.held:
            self.label = label
        self.held += content
        if self.local or time.monotonic() >= self.due:
            self._write()

    def persist(self) -> None:
        """Write all that is kept.

        Raises:
            OSError: it could not be written, and is still kept.
        """
        self._write()

    def end_part(self) -> None:
        """Have what follows begin a part of its own."""
        self.open_part, self.written = "", b""

    def _write(self) -> None:
        if not self.held:
            return
        if self.local:
            _append(self.local, self.held, self.head)
        else:
            self._write_part()
        self.held = b""
        self.due = time.monotonic() + PART_EVERY_S

    def _write_part(self) -> None:
        """Write the part again, with what is kept behind what it holds."""
        self.open_part = self.open_part or self.part(self.label)
        longer = (self.written or self.head) + self.held
        put_file(below(self.folder, self.open_part), longer)
        self.written = longer
        if len(longer) >= PART_BYTES:
            self.end_part()


def _append(path: Path, content: bytes, head: bytes) -> None:
    """Append to a local file; on failure it is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # unbuffered: a failed write is seen here, not when the file is closed
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        left = memoryview(content if size else head + content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(size)
            raise
