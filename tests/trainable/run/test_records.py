"""metrics.jsonl: every step once, also after a resume, on disks and object stores."""

import json
import logging
import math

import fsspec
import pytest
import torch

from trainable.config import NotFiniteConfig
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.step import StepReport
from trainable.run.records import MetricsFile, RunLog, read_metrics


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


def report(**scalars: float) -> StepReport:
    return StepReport(
        {tag: torch.tensor(v) for tag, v in scalars.items()},
        torch.tensor([3.0, 4.0]).double(),
        torch.tensor([False, True]),
    )


def test_scalars_are_read_once_and_losses_a_step_does_not_have_are_left_out(tmp_path):
    log = RunLog(str(tmp_path), 0, writes=True)
    log.add(report(**{"loss/g/mel": 1.5, "loss/dur_disc_r/7": math.nan}), step=1)
    log.add(report(**{"loss/g/mel": 1.25, "loss/dur_disc_r/7": 0.5}), step=2)
    log.flush()
    assert log.flush() == []
    assert read_metrics(str(tmp_path)) == [
        {"step": 1, "loss/g/mel": 1.5, "consumed": [3, 4]},
        {"step": 2, "loss/g/mel": 1.25, "loss/dur_disc_r/7": 0.5, "consumed": [3, 4]},
    ]


@pytest.mark.parametrize("writes", [True, False])
def test_what_is_not_finite_stops_every_rank_alike_and_is_named(tmp_path, writes):
    log = RunLog(str(tmp_path), 0, writes=writes)
    log.add(report(grad_norm_g=1.0), step=1)
    log.add(report(grad_norm_g=math.inf), step=2)
    log.add(report(grad_norm_g=math.nan), step=3)  # a consequence: nobody needs it
    with pytest.raises(
        NotFiniteError, match="step 2: network g: grad_norm_g inf; micro-batch 1 holds 1"
    ):
        log.flush()
    assert log.flush() == []
    if writes:  # the line is there all the same, as JSON that any reader takes
        assert [line["grad_norm_g"] for line in read_metrics(str(tmp_path))] == [1.0, "inf"]


def test_skipped_steps_are_named_and_have_a_limit(tmp_path, caplog):
    log = RunLog(
        str(tmp_path), 0, True, NotFiniteConfig("skip", max_grad_norm=50.0, max_in_a_row=2)
    )
    bad, good = {"grad_norm_g": math.nan, "skipped_g": 1.0}, {"grad_norm_g": 2.0, "skipped_g": 0.0}
    for step, scalars in enumerate(
        [bad, {"grad_norm_g": 60.0, "skipped_g": 1.0}, good, bad, bad], 1
    ):
        log.add(report(**scalars), lambda slot: f"utterances of {slot}", step=step)
    with caplog.at_level(logging.WARNING, "bert_vits2_ray"):
        log.flush()
    assert (
        "step 1: network g: grad_norm_g nan; micro-batch 1 holds utterances of 1. The update of g is left out"
        in caplog.text
    )
    assert "step 2: network g: grad_norm_g 60" in caplog.text
    log.add(report(**bad), step=6)
    with pytest.raises(
        NotFiniteError, match=r"step 6: network g: grad_norm_g nan.* 3 such steps in a row"
    ):
        log.flush()


def test_loss_scaling_may_overflow_but_losses_may_not(tmp_path):
    log = RunLog(str(tmp_path), 0, True, loss_scaling=True)
    log.add(report(**{"grad_norm_g": math.inf, "loss/g/mel": 1.0}), step=1)
    assert len(log.flush()) == 1
    log.add(report(**{"grad_norm_g": 1.0, "loss/g/mel": math.nan}), step=2)
    with pytest.raises(NotFiniteError, match="step 2: network g: grad_norm_g 1, loss/g/mel nan"):
        log.flush()


@pytest.mark.parametrize("writes", [True, False])
def test_loss_scaling_that_never_finds_a_scale_is_a_fault(tmp_path, writes):
    """Losses stay finite, every update is skipped: nothing would be learned, and nobody would know."""
    log = RunLog(str(tmp_path), 0, writes, loss_scaling=True)

    def steps(first: int, last: int, **norms: float) -> None:
        for step in range(first, last + 1):
            log.add(report(**norms), step=step)
        log.flush()

    steps(1, 30, grad_norm_g=math.inf, grad_norm_d=1.0)
    steps(31, 31, grad_norm_g=1.0, grad_norm_d=math.inf)  # found
    steps(32, 60, grad_norm_g=math.inf, grad_norm_d=1.0)
    steps(61, 61, grad_norm_g=math.nan, grad_norm_d=math.inf)
    with pytest.raises(
        NotFiniteError,
        match=r"step 62: network g: grad_norm_g inf; .* 30 steps in a row.* try bf16",
    ):
        steps(62, 65, grad_norm_g=math.inf, grad_norm_d=math.inf)
    log.roll_back(62, ((51, 62),))  # to an earlier scale
    steps(63, 92, grad_norm_g=math.inf, grad_norm_d=1.0)


def test_an_exploded_gradient_stops_where_that_is_asked_for(tmp_path):
    log = RunLog(str(tmp_path), 0, True, NotFiniteConfig(max_grad_norm=50.0))
    log.add(report(grad_norm_d=51.0), step=1)
    with pytest.raises(
        NotFiniteError,
        match=r"step 1: network d: grad_norm_d 51; micro-batch 1 holds 1\. The last good state",
    ):
        log.flush()
