"""What is done, kept as it is done: a run that was killed goes on where it was.

The folder holds `transcription.json`, the settings that its results depend on, and `journal/`, in
whose files each line is a result. Files are written whole and never again, as object stores want.
"""

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from data.files import below, list_folder, put_file, read_file, remove_file

SETTINGS = "transcription.json"
FOLDER = "journal"
EVERY_SECONDS = 2.0  # what a killed run loses, at most
AT_A_TIME = 16
MOST_FILES = 64  # more are joined when a run begins

Result = dict[str, Any]


def claim(out: str, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that is not for this run; mark one that is new.

    Args:
        out: folder or URI.
        settings: key -> value, of what results depend on.

    Raises:
        ValueError: it holds another run, or something else; names what differs.
    """
    there = list_folder(out)
    if SETTINGS not in there:
        if there:
            raise ValueError(
                f"--out {out} is not empty ({there[0]}) and holds no transcription: give a new "
                "folder"
            )
        put_file(below(out, SETTINGS), json.dumps(settings, indent=1).encode())
        return
    before = json.loads(read_file(below(out, SETTINGS)))
    differ = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if differ:
        told = "; ".join(f"{key} was {before.get(key)}, is {settings.get(key)}" for key in differ)
        raise ValueError(
            f"--out {out} holds a transcription with other settings ({told}): set them back, or "
            "give another folder"
        )


class Journal:
    """The results of a folder.

    Args:
        out: folder or URI.
    """

    def __init__(self, out: str) -> None:
        self.folder = below(out, FOLDER)
        self.waiting: list[str] = []
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None
        self.failure: OSError | None = None
        self.names = [name for name in list_folder(self.folder) if name.endswith(".jsonl")]
        self.number = max((int(name.partition("-")[0]) for name in self.names), default=0)

    def read(self) -> Iterator[Result]:
        """Yield all results, in the order in which they came."""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            contents = list(pool.map(lambda name: read_file(below(self.folder, name)), self.names))
        if len(self.names) > MOST_FILES:
            self._join(contents)
        for content in contents:
            yield from map(json.loads, content.splitlines())

    def _join(self, contents: list[bytes]) -> None:
        """Write one file in place of many."""
        self.number += 1
        put_file(self._place(), b"".join(contents))
        for name in self.names:
            remove_file(below(self.folder, name))

    def add(self, result: Result) -> None:
        """Keep a result: it is written within EVERY_SECONDS, with those that come until then.

        Raises:
            OSError: what came before could not be written.
        """
        with self.lock:
            self.waiting.append(json.dumps(result) + "\n")
            if self.failure is not None:
                raise self.failure
            if self.timer is None:
                self.timer = threading.Timer(EVERY_SECONDS, self._write_in_time)
                self.timer.daemon = True
                self.timer.start()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            OSError: it cannot be written.
        """
        with self.lock:
            self._write()

    def _write_in_time(self) -> None:
        with self.lock:
            try:
                self._write()
            except OSError as error:  # for the thread that adds
                self.failure = error

    def _write(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.waiting:
            self.number += 1
            put_file(self._place(), "".join(self.waiting).encode())
            self.waiting = []

    def _place(self) -> str:
        # two commands in one folder do not write each other's files
        return below(self.folder, f"{self.number:08}-{uuid.uuid4().hex[:8]}.jsonl")
