"""`metrics.jsonl`: one JSON object per global step, no step missing and none twice.

On a local disk it is one file; in an object store, which cannot append, parts that are named after
their first step.
"""

import json
import os
from collections.abc import Iterable

import fsspec

from data.files import put_file, reachable
from trainable.learning.judgement import Spans
from trainable.run.format import METRICS, METRICS_PARTS, metrics_part
from trainable.run.growing import GrowingFile

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
            fs, root = fsspec.core.url_to_fs(folder)
            if self.local:
                paths = fs.glob(f"{root}/{METRICS}")
            else:
                paths = _parts_up_to(resume_step, fs, root)

            for path in reversed(paths):
                content = fs.cat_file(path)
                size, lines = _mended(content, resume_step, passed_over)
                if self.local and not lines:
                    os.truncate(self.local, size)
                elif content[size:] != lines:
                    put_file(fs.unstrip_protocol(path), content[:size] + lines)
                if size:  # it has a line that is as it must be
                    break

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
        fs, root = fsspec.core.url_to_fs(folder)
        whole = f"{root}/{METRICS}"
        paths = [whole] if fs.exists(whole) else _parts(fs, root)
        return [line for path in paths for line in _parsed(fs.cat_file(path))]


def _parsed(content: bytes) -> list[dict]:
    """Parse the lines of a file; a process that was killed may have left half a line at its end."""
    return [json.loads(line) for line in content.splitlines() if line.endswith(b"}")]


def _encoded(objects: Iterable[dict]) -> bytes:
    return "".join(json.dumps(o) + "\n" for o in objects).encode()


def _parts(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    fs.invalidate_cache()
    return sorted(fs.glob(f"{root}/{METRICS_PARTS}"))


def _parts_up_to(step: int, fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    """Return the parts that begin up to a step, and remove the others."""
    paths = _parts(fs, root)
    later = [path for path in paths if _first_step(path) > step]
    if later:
        fs.rm(later)
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
        if content[begin:end].endswith(b"}\n"):  # not half a line of a process that was killed
            line = json.loads(content[begin:end])
            wanted = {tag: v for tag, v in line.items() if tag != ROLLED_BACK}
            if any(first <= line["step"] <= last for first, last in passed_over):
                wanted[ROLLED_BACK] = True
            if line["step"] <= resume_step:
                if line == wanted:
                    break
                changed.append(wanted)
        end = begin
    return end, _encoded(reversed(changed))
