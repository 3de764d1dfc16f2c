"""`metrics.jsonl`: one JSON object per global step, no step missing and none twice.

On a local disk it is one file; in an object store, which cannot append, parts that are named after
their first step and end where a checkpoint is saved.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from fsspec import AbstractFileSystem

from data.files import PART_SUFFIX, below, located, put_file, reachable
from trainable.learning.judgement import Spans
from trainable.run.format import METRICS, METRICS_PARTS, metrics_part
from trainable.run.growing import GrowingFile
from trainable.run.storage import names_in

log = logging.getLogger("bert_vits2_ray")
_PART = re.compile(r"([0-9]+)\.jsonl")
_STEP = re.compile(rb'"step": ([0-9]+)[,}]')
ROLLED_BACK = "rolled_back"  # key of steps that a roll-back has passed over
PIECE = 4 * 2**20  # bytes of a local file that are read at once, from its end: some thousand lines


class MetricsFile(GrowingFile):
    """The metrics of a run, to be appended to."""

    def __init__(self, folder: str, resume_step: int, passed_over: Spans = ()):
        """Open the run's file and forget what lies behind a step.

        It is read from its end, a part or PIECE at a time, to a line that is as it must be, no
        further: a run of weeks leaves gigabytes. The lines before that one are so too. A roll-back
        passes over the last steps; and if the run resumes from among them, because it was killed
        before it had saved itself, those up to that step are the last ones again.

        Args:
            folder: folder or URI of the run.
            resume_step: step that the run resumes from.
            passed_over: steps that roll-backs have passed over; their lines have `"rolled_back":
                true`.

        Raises:
            OSError: it cannot be read or written.
        """
        super().__init__(folder, METRICS, metrics_part)
        mended = self._mend_parts if self.local is None else self._mend_file
        *before, last = mended(resume_step, passed_over)
        for stretch in (*before, [*last, resume_step + 1]):
            for gap in _gaps(stretch):
                log.warning("%s has no lines for steps %d to %d", METRICS, *gap)

    def persist(self) -> None:
        """Write all that is kept; what follows is a part of its own, as a resume may drop it.

        Raises:
            OSError: it could not be written, and is still kept.
        """
        super().persist()
        self.end_part()

    def _mend_parts(self, resume_step: int, passed_over: Spans) -> list[list[int]]:
        """Mend the parts in an object store; return the steps from where they were read on.

        See `_mend_file`.
        """
        with reachable(self.folder):
            fs, root = located(self.folder)
            paths = _parts_up_to(resume_step, fs, root)
        steps: list[int] = []
        for path in reversed(paths):
            with reachable(self.folder):
                content = fs.cat_file(f"{root}/{path}")
            size, lines = _mended(content, resume_step, passed_over)
            if content[size:] != lines:
                put_file(below(self.folder, path), content[:size] + lines)
            steps = [*_steps(content[:size] + lines), *steps]
            if size:  # it has a line that is as it must be
                break

        # an earlier part ends where the one that was read begins
        before = 0 if len(paths) < 2 or not steps else steps[0] - 1
        return [[before, *steps]]

    def _mend_file(self, resume_step: int, passed_over: Spans) -> list[list[int]]:
        """Mend the local file; return stretches of ascending steps, in which none may be missing.

        Between two stretches nothing was read.
        """
        assert self.local is not None
        if not self.local.exists():
            return [[0]]
        keep, old, new = 0, b"", b""  # bytes that stay as they are; what follows them, and is to
        kept = b""
        for begin, content in _from_the_end(self.local):
            size, lines = _mended(content, resume_step, passed_over)
            keep, kept = begin + size, content[:size]
            old, new = content[size:] + old, lines + new
            if size:  # it has a line that is as it must be
                break
        if old != new:
            _replace_end(self.local, keep, new)

        steps = _steps(kept + new)
        if keep == len(kept):
            return [[0, *steps]]
        return [[0, *_first_of(self.local)], steps]

    def add(self, lines: list[dict]) -> None:
        """Add the lines of consecutive steps.

        Raises:
            OSError: they could not be written, and are kept.
        """
        if lines:
            self.append(_encoded(lines), f"{lines[0]['step']:09d}")


def read_metrics(folder: str) -> list[dict]:
    """Return all steps of a run's metrics, in order; empty for a new run.

    Args:
        folder: local folder of the run, or its URI in an object store.
    """
    with reachable(folder):
        fs, root = located(folder)
        paths = [METRICS] if fs.exists(f"{root}/{METRICS}") else _parts(fs, root)
        contents = {path: fs.cat_file(f"{root}/{path}") for path in paths}
    return [line for path in paths for line in _parsed(below(folder, path), contents[path])]


def _parsed(source: str, content: bytes) -> Iterator[dict]:
    """Yield the lines of a file that are whole; log which are not."""
    for number, raw in enumerate(content.splitlines(), start=1):
        line = _line(raw)
        if line is not None:
            yield line
        else:
            log.warning("%s:%d is damaged, and left out", source, number)


def _line(raw: bytes) -> dict | None:
    """Parse a line; None if it is damaged, such as half a line of a process that was killed."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _from_the_end(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, a piece at a time from its end: where it begins, and its bytes."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        size = PIECE
        while end:
            begin = max(0, end - size)
            file.seek(begin)
            content = file.read(end - begin)
            # behind the end of a line, unless it is the piece's last one
            cut = content.find(b"\n", 0, -1) + 1 if begin else 0
            if begin and not cut:
                size *= 2
                continue
            yield begin + cut, content[cut:]
            end, size = begin + cut, PIECE


def _replace_end(path: Path, keep: int, end: bytes) -> None:
    """Replace what a file has behind some bytes; a process that is killed leaves either content."""
    if not end:
        os.truncate(path, keep)
        return
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        shutil.copyfile(path, part)  # by the system: gigabytes do not pass through this process
        os.truncate(part, keep)
        with part.open("ab") as file:
            file.write(end)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _first_of(path: Path) -> list[int]:
    """Return the step of a file's first line, if that tells one."""
    with path.open("rb") as file:
        return _steps(file.readline(PIECE))[:1]


def _steps(content: bytes) -> list[int]:
    """Return the steps that a file has lines for, which may be thousands: they are not parsed."""
    return [int(found) for found in _STEP.findall(content)]


def _gaps(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last step of each gap in ascending steps."""
    for before, after in pairwise(steps):
        if after - before > 1:
            yield before + 1, after - 1


def _encoded(objects: Iterable[dict]) -> bytes:
    return "".join(json.dumps(o) + "\n" for o in objects).encode()


def _parts(fs: AbstractFileSystem, root: str) -> list[str]:
    """Return the paths of all parts below the run's folder, sorted by their steps."""
    fs.invalidate_cache()
    names = filter(_PART.fullmatch, names_in(fs, f"{root}/{METRICS_PARTS}"))
    return sorted((f"{METRICS_PARTS}/{name}" for name in names), key=_first_step)


def _parts_up_to(step: int, fs: AbstractFileSystem, root: str) -> list[str]:
    """Return the parts that begin up to a step, and remove the others."""
    paths = _parts(fs, root)
    later = [path for path in paths if _first_step(path) > step]
    for path in later:
        fs.rm_file(f"{root}/{path}")
    return paths[: len(paths) - len(later)]


def _first_step(part: str) -> int:
    name, _, _ = part.rpartition("/")[2].partition(".")
    return int(name)


def _mended(content: bytes, resume_step: int, passed_over: Spans) -> tuple[int, bytes]:
    """Return the bytes of a file that stay, and the lines that belong behind them.

    These are the lines up to a step; those that were passed over are marked.
    """
    changed: list[dict] = []
    end = len(content)
    while end:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        line = _line(content[begin:end]) if content[begin:end].endswith(b"\n") else None
        if line is not None:
            wanted = {tag: v for tag, v in line.items() if tag != ROLLED_BACK}
            if any(first <= line["step"] <= last for first, last in passed_over):
                wanted[ROLLED_BACK] = True
            if line["step"] <= resume_step:
                if line == wanted:
                    break
                changed.append(wanted)
        end = begin
    return end, _encoded(reversed(changed))
