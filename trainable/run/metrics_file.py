"""`metrics.jsonl`: one JSON object per global step, no step missing and none twice.

On a local disk it is one file; in an object store, which cannot append, parts that are named after
their first step.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from fsspec import AbstractFileSystem

from data.files import below, located, put_file, reachable
from trainable.learning.judgement import Spans
from trainable.run.format import METRICS, METRICS_PARTS, metrics_part
from trainable.run.growing import GrowingFile
from trainable.run.storage import names_in

log = logging.getLogger("bert_vits2_ray")
_PART = re.compile(r"([0-9]+)\.jsonl")
_STEP = re.compile(rb'"step": ([0-9]+)[,}]')
ROLLED_BACK = "rolled_back"  # key of steps that a roll-back has passed over


class MetricsFile(GrowingFile):
    """The metrics of a run, to be appended to."""

    def __init__(self, folder: str, resume_step: int, passed_over: Spans = ()):
        """Open the run's file and forget what lies behind a step.

        It is read from its end to a line that is as it must be, no further: a run of days leaves
        thousands of parts. The lines before that one are so too. A roll-back passes over the last
        steps; and if the run resumes from among them, because it was killed before it had saved
        itself, those up to that step are the last ones again.

        Args:
            folder: folder or URI of the run.
            resume_step: step that the run resumes from.
            passed_over: steps that roll-backs have passed over; their lines have `"rolled_back":
                true`.

        Raises:
            OSError: it cannot be read or written.
        """
        super().__init__(folder, METRICS, metrics_part)
        with reachable(folder):
            fs, root = located(folder)
            if self.local:
                paths = [METRICS] if fs.exists(f"{root}/{METRICS}") else []
            else:
                paths = _parts_up_to(resume_step, fs, root)

        steps: list[int] = []
        for path in reversed(paths):
            with reachable(folder):
                content = fs.cat_file(f"{root}/{path}")
            size, lines = _mended(content, resume_step, passed_over)
            if self.local and not lines:
                os.truncate(self.local, size)
            elif content[size:] != lines:
                put_file(below(folder, path), content[:size] + lines)
            steps = [*_steps(content[:size] + lines), *steps]
            if size:  # it has a line that is as it must be
                break

        # an earlier part ends where the one that was read begins
        first = 0 if len(paths) < 2 or not steps else steps[0] - 1
        for gap in _gaps([first, *steps, resume_step + 1]):
            log.warning("%s has no lines for steps %d to %d", METRICS, *gap)

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


def _steps(content: bytes) -> list[int]:
    """Return the steps that a file has lines for, which may be millions: they are not parsed."""
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
