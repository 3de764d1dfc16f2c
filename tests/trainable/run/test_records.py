"""The records of the steps: scalars read once, and what is not finite named or left out."""

import json
import logging
import math
import re
import zlib
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from job.reports.heard import heard
from trainable.config import EvalConfig, NotFiniteConfig, TrainConfig
from trainable.evaluation.evaluate import validation_tags
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.report import StepReport
from trainable.run import growing
from trainable.run.metrics_file import read_metrics
from trainable.run.records import RunLog


def report(absent: tuple[str, ...] = (), **scalars: float) -> StepReport:
    """A report of losses, and behind them gradient norms."""
    losses = [tag for tag in scalars if tag.startswith("loss/")]
    return StepReport(
        {tag: torch.tensor(v) for tag, v in scalars.items()},
        present=torch.tensor([tag not in absent for tag in losses], dtype=torch.bool),
        consumed=torch.tensor([3.0, 4.0]).double(),
        broken=torch.tensor([False, True]),
    )


def test_scalars_are_read_once_and_losses_a_step_does_not_have_are_left_out(tmp_path):
    log = RunLog(str(tmp_path), 0, writes=True)
    last = "loss/dur_disc_r/7"
    first = report((last,), **{"loss/g/mel": 1.5, last: math.nan, "grad_norm_g": 9.0})
    log.add(first, step=1)
    log.add(report(**{"loss/g/mel": 1.25, last: 0.5, "grad_norm_g": 9.0}), step=2)
    log.flush()
    assert log.flush() == []
    shared = {"grad_norm_g": 9.0, "consumed": [3, 4]}
    assert read_metrics(str(tmp_path)) == [
        {"step": 1, "loss/g/mel": 1.5} | shared,
        {"step": 2, "loss/g/mel": 1.25, last: 0.5} | shared,
    ]


@pytest.mark.parametrize("micro_batches", [1, 4, 5, 512])
def test_what_was_consumed_takes_no_more_room_with_more_micro_batches(tmp_path, micro_batches):
    log = RunLog(str(tmp_path), 0, writes=True)
    crcs = [number * 2**22 for number in range(micro_batches)]
    for step, used in ((1, crcs), (2, crcs), (3, [*crcs[:-1], 7])):
        consumed = torch.tensor(used).double()
        log.add(replace(report(**{"loss/g/mel": 1.5}), consumed=consumed), step=step)
    log.flush()
    first, same, other = (line["consumed"] for line in read_metrics(str(tmp_path)))
    assert first == same != other
    assert len(json.dumps(first)) <= len(json.dumps([2**32 - 1] * 4))
    assert first == crcs or micro_batches > 4
    if micro_batches > 4:
        assert first == [zlib.crc32(b"".join(crc.to_bytes(4, "little") for crc in crcs))]


def shown(folder: str, copy: Path) -> tuple[list[int], int]:
    """What TensorBoard shows of a run in memory: steps of a scalar; and the number of its files."""
    fs = fsspec.filesystem("memory")
    files = fs.find(f"{folder}/tensorboard")
    copy.mkdir()
    for file in files:
        (copy / file.rpartition("/")[2]).write_bytes(fs.cat_file(file))
    board = EventAccumulator(str(copy))
    board.Reload()
    return [event.step for event in board.Scalars("loss/g/mel")], len(files)


def test_an_object_store_holds_few_event_files(tmp_path, monkeypatch):
    """A part grows: it is written again every half minute, and at checkpoints."""
    clock = 0.0
    monkeypatch.setattr(growing.time, "monotonic", lambda: clock)
    folder = f"memory://{tmp_path.name}/run"
    fields = {"lr": 0.1, "epoch": 0, "world_size": 1, "seconds": 1.0, "utterances": 4}
    fields |= {"padding": 0.0, "seconds_waiting": 0.0, "peak_gib": 0.0}
    log = RunLog(folder, 0, writes=True)
    for step in range(1, 401):
        clock += 10.0
        log.add(report(**{"loss/g/mel": 1.5}), step=step, **fields)
        log.scalars(log.flush()[-1])
        if step % 50 == 0:
            log.persist()
        if step == 199:  # what a viewer sees in mid-run: all but the last half minute
            assert shown(folder, tmp_path / "early")[0][-1] >= 196
    log.close()
    assert shown(folder, tmp_path / "late") == ([*range(1, 401)], 1)
    assert [line["step"] for line in read_metrics(folder)] == [*range(1, 401)]
    # a part of the metrics ends at each checkpoint
    parts = fsspec.filesystem("memory").ls(f"{folder}/metrics", detail=False)
    assert [int(part[-15:-6]) for part in sorted(parts)] == [*range(1, 400, 50)]

    # a part that is large enough is left alone
    monkeypatch.setattr(growing, "PART_BYTES", 20_000)
    log = RunLog(folder, 400, writes=True)
    for step in range(401, 501):
        clock += 10.0
        log.add(report(**{"loss/g/mel": 1.5}), step=step, **fields)
        log.scalars(log.flush()[-1])
    log.close()
    steps, files = shown(folder, tmp_path / "again")
    assert steps == [*range(1, 501)]
    assert 3 <= files <= 7


def test_a_loss_of_an_utterance_that_is_nan_is_a_fault(tmp_path):
    """It is there, and no number: not a loss that a small micro-batch lacks."""
    log = RunLog(str(tmp_path), 0, writes=True)
    log.add(report(**{"loss/dur_disc_r/1": math.nan, "loss/dur_disc/total": 1.0}), step=1)
    message = "step 1: network dur: loss/dur_disc/total 1, loss/dur_disc_r/1 nan"
    with pytest.raises(NotFiniteError, match=message):
        log.flush()


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
        "step 1: network g: grad_norm_g nan; micro-batch 1 holds utterances of 1. "
        "The update of g is left out" in caplog.text
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
    """Losses stay finite, every update is skipped: otherwise nobody would know."""
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


def test_a_validations_sounds_say_their_texts_and_its_charts_come_first(tmp_path):
    log = RunLog(str(tmp_path), 0, writes=True)
    wave = np.zeros(100, np.float32)
    sample = {"text": "Hello.", "mels": {}, "alignments": {}, "audio": {"gen/audio_0_False": wave}}
    sounds = {"sentence/EN_anna": wave}
    log.evaluation(2, {"eval/mel": 1.5}, [sample], sounds, 16000, {"sentence/EN_anna": "Hi."})
    log.close()
    told = [(each.tag, each.step, each.text) for each in heard(str(tmp_path), "")]
    assert told == [("gen/audio_0_False", 2, "Hello."), ("sentence/EN_anna", 2, "Hi.")]

    board = EventAccumulator(str(tmp_path / "tensorboard/eval"))
    board.Reload()
    assert board.SummaryMetadata("sentence/EN_anna").summary_description == "Hi."
    (layout,) = board.Tensors("custom_scalars__config__")
    charts = Layout.FromString(layout.tensor_proto.string_val[0])
    assert [category.title for category in charts.category][:2] == ["Evaluation", "Losses"]
    patterns = [tag for chart in charts.category[0].chart for tag in chart.multiline.tag]
    for tag in validation_tags(TrainConfig(ema_decay=0.99), EvalConfig()):
        if not tag.endswith(("kl", "dur")):
            assert any(re.match(pattern, tag) for pattern in patterns), tag
