"""metrics.jsonl: every step once, also after a resume, on disks and object stores."""

import errno
import json
import os
from pathlib import Path

import fsspec
import psutil
import pytest

from trainable.run import metrics_file
from trainable.run.metrics_file import MetricsFile, read_metrics


def lines(first: int, last: int) -> list[dict]:
    return [{"step": step, "loss": step / 3} for step in range(first, last + 1)]


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """A local folder, and fsspec's in-memory file system for what cannot append."""
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run"


def test_a_resume_forgets_what_lies_behind_it(folder):
    assert read_metrics(folder) == []
    metrics = MetricsFile(folder, 0)
    metrics.add(lines(1, 4))
    metrics.add(lines(5, 9))
    metrics.persist()
    assert read_metrics(folder) == lines(1, 9)
    metrics = MetricsFile(folder, 6)
    assert read_metrics(folder) == lines(1, 6)
    metrics.add(lines(7, 8))
    metrics.persist()
    assert read_metrics(folder) == lines(1, 8)


def test_steps_that_were_passed_over_are_marked_as_long_as_that_is_so(folder):
    metrics = MetricsFile(folder, 0)
    metrics.add(lines(1, 4))
    metrics.persist()
    metrics = MetricsFile(folder, 3, ((3, 3),))
    metrics.add(lines(4, 4))
    metrics.add(lines(5, 9))
    metrics.persist()
    metrics = MetricsFile(folder, 7, ((3, 3), (6, 7)))
    marked = [
        line | {"rolled_back": True} if line["step"] in (3, 6, 7) else line for line in lines(1, 7)
    ]
    assert read_metrics(folder) == marked
    metrics.add(lines(8, 8))
    metrics.persist()
    MetricsFile(folder, 6, ((3, 3),))  # killed before the second one was saved
    assert read_metrics(folder) == [*marked[:5], lines(6, 6)[0]]


def test_marks_reach_over_many_parts_and_go_again(folder):
    in_parts(folder, 10, 2)
    MetricsFile(folder, 9, ((4, 9),))
    assert read_metrics(folder) == lines(1, 3) + [
        line | {"rolled_back": True} for line in lines(4, 9)
    ]
    MetricsFile(folder, 8)  # killed before that was saved
    assert read_metrics(folder) == lines(1, 8)


def in_parts(folder: str, last: int, size: int) -> None:
    metrics = MetricsFile(folder, 0)
    for first in range(1, last, size):
        metrics.add(lines(first, first + size - 1))
        metrics.persist()


def test_a_resume_reads_one_part_of_many(tmp_path, monkeypatch):
    folder = f"memory://{tmp_path.name}/run"
    in_parts(folder, 400, 4)
    fs, read = fsspec.filesystem("memory"), []
    cat_file = type(fs).cat_file
    monkeypatch.setattr(
        type(fs), "cat_file", lambda self, path, **k: read.append(path) or cat_file(self, path, **k)
    )
    MetricsFile(folder, 350, ((9, 22),))
    assert [path.rpartition("/")[2] for path in read] == ["000000349.jsonl"]
    read.clear()
    MetricsFile(folder, 348, ((9, 22), (339, 348)))  # a roll-back: those that it marks
    assert [path.rpartition("/")[2] for path in read] == [f"{n:09d}.jsonl" for n in (345, 341, 337)]
    assert [line["step"] for line in read_metrics(folder)] == [*range(1, 349)]
    assert [line["step"] for line in read_metrics(folder) if "rolled_back" in line] == [
        *range(339, 349)
    ]


def bytes_read(open_it) -> int:
    """What a call reads of files, its own and those that it copies through memory."""
    this = psutil.Process()
    before = this.io_counters().read_chars
    open_it()
    return this.io_counters().read_chars - before


@pytest.mark.parametrize("resume_step", [6000, 5990, 5400])
def test_a_resume_from_a_disk_reads_the_end_of_the_file(tmp_path, monkeypatch, resume_step):
    monkeypatch.setattr(metrics_file, "PIECE", 2000)
    run = str(tmp_path)
    MetricsFile(run, 0).add(lines(1, 6000))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    behind = size * (6000 - resume_step) // 6000
    assert bytes_read(lambda: MetricsFile(run, resume_step)) < behind + 50_000 < size // 2
    assert read_metrics(run) == lines(1, resume_step)


def test_marks_reach_over_many_pieces_of_a_file_and_go_again(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file, "PIECE", 100)  # three lines, or none
    run = str(tmp_path)
    MetricsFile(run, 0).add(lines(1, 90))
    MetricsFile(run, 80, ((30, 80),))
    marked = [line | {"rolled_back": True} for line in lines(30, 80)]
    assert read_metrics(run) == [*lines(1, 29), *marked]
    MetricsFile(run, 70)  # killed before that was saved
    assert read_metrics(run) == lines(1, 70)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_disk_that_is_full_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    run = str(tmp_path)
    MetricsFile(run, 0).add(lines(1, 9))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "replace", lambda *_: full_disk())
        MetricsFile(run, 9, ((4, 9),))
    assert read_metrics(run) == lines(1, 9)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("first", [1, 41])
def test_what_a_long_file_lacks_at_its_beginning_is_said(tmp_path, monkeypatch, caplog, first):
    monkeypatch.setattr(metrics_file, "PIECE", 500)
    MetricsFile(str(tmp_path), 0).add(lines(first, 400))
    with caplog.at_level("WARNING", "bert_vits2_ray"):
        MetricsFile(str(tmp_path), 410)
    assert [each.getMessage() for each in caplog.records] == [
        f"metrics.jsonl has no lines for steps {gap}"
        for gap in (["1 to 40"] if first > 1 else []) + ["401 to 410"]
    ]


def test_half_a_line_of_a_killed_process_is_left_out(tmp_path):
    metrics = MetricsFile(str(tmp_path), 0)
    metrics.add(lines(1, 3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    metrics = MetricsFile(str(tmp_path), 3)
    metrics.add(lines(4, 4))
    assert [
        json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ] == lines(1, 4)


@pytest.mark.parametrize(
    "tail", [b"{\n", b"\x00\x00}\n", b"[1]\n", b'{"step": "x"}\n', b"[" * 5000]
)
def test_a_damaged_end_is_taken_off(folder, tail):
    fs, root = fsspec.core.url_to_fs(folder)
    in_parts(folder, 4, 3)
    path = next(path for path in fs.find(root) if path.endswith("jsonl"))
    fs.pipe_file(path, fs.cat_file(path) + tail)
    assert read_metrics(folder) == lines(1, 3)
    MetricsFile(folder, 3)
    assert fs.cat_file(path).count(b"\n") == 3


@pytest.mark.parametrize(
    ("kept", "gap"), [((1, 120), "121 to 240"), ((121, 240), "1 to 120"), ((1, 0), "1 to 240")]
)
def test_a_lost_part_is_said_once(tmp_path, caplog, kept, gap):
    folder = str(tmp_path)
    MetricsFile(folder, 0).add(lines(*kept))
    with caplog.at_level("WARNING", "bert_vits2_ray"):
        MetricsFile(folder, 240)
    assert [each.getMessage() for each in caplog.records] == [
        f"metrics.jsonl has no lines for steps {gap}"
    ]


def test_lost_parts_of_an_object_store_are_said(tmp_path, caplog):
    folder = f"memory://{tmp_path.name}/lost"
    in_parts(folder, 10, 2)
    fs, root = fsspec.core.url_to_fs(folder)
    for part in sorted(fs.find(root))[-2:]:
        fs.rm_file(part)
    fs.pipe_file(f"{root}/metrics/notes.jsonl", b"somebody else's")
    with caplog.at_level("WARNING", "bert_vits2_ray"):
        MetricsFile(folder, 10)
    assert [each.getMessage() for each in caplog.records] == [
        "metrics.jsonl has no lines for steps 7 to 10"
    ]
