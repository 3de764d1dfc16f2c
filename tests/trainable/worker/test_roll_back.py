"""Numbers that blow up: said in words, and rolled back to the same bits whatever else happens."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest

from data.plan.epoch_plan import Position
from data.stream.collate import TtsBatch
from job.settings.config import Config
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.config import NotFiniteConfig
from trainable.learning.not_finite import NotFiniteError, describe, faults
from trainable.learning.state import TrainState
from trainable.learning.step import TrainingStep
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointInfo, read_info
from trainable.run.records import RunLog
from trainable.worker.roll_back import in_succession, pass_over, roll_back, scheduled_before

BAD = 4  # the step whose audio is no numbers


@pytest.fixture
def cfg() -> Config:
    return tiny_config(
        micro_batches_per_step=1, reduction="exact", not_finite=NotFiniteConfig("roll_back")
    )


def batch_of(cfg: Config, step: int) -> TtsBatch:
    batch = tiny_batch(cfg, step)
    return replace(batch, y=batch.y * math.nan).with_spectrogram(cfg.data) if step == BAD else batch


def advance(position: Position) -> Position:
    return Position(position.step + 1, position.epoch, position.epoch_step + 1)


def train(cfg: Config, state: TrainState, records: RunLog, last: int) -> None:
    step = TrainingStep(state, cfg.train, cfg.data)
    while state.position.step < last:
        number = state.position.step + 1
        report = step([(0, batch_of(cfg, number))])
        records.add(report, lambda slot, number=number: f"utterance {number}", step=number)
        state.position = advance(state.position)


def save(folder: Path, state: TrainState) -> Path:
    folder.mkdir()
    info = CheckpointInfo(
        state.position, "digest", "code", {}, {}, 1, passed_over=state.passed_over
    )
    save_checkpoint(folder, state, info, "")
    return folder


@pytest.mark.medium
def test_restored_and_passed_over_it_goes_on_as_if_it_had_never_seen_the_data(
    cfg, tmp_path, caplog
):
    state, records = tiny_state(cfg), RunLog(str(tmp_path), 0, False, cfg.train.not_finite)
    train(cfg, state, records, 2)
    good = save(tmp_path / "checkpoint_000000002", state)
    train(cfg, state, records, 6)  # two steps more before anybody looks
    assert all(p.isfinite().all() for net in state.nets.values() for p in net.parameters())
    said = (
        "step 4: network g: loss/g/total nan, grad_norm_g .*"
        "network d: loss/d/total nan, grad_norm_d nan.*"
    )
    with pytest.raises(NotFiniteError, match=said + "; micro-batch 0 holds utterance 4") as caught:
        records.flush()
    assert caught.value.step == BAD
    with caplog.at_level(logging.WARNING, "bert_vits2_ray"):
        roll_back(state, good, caught.value, advance, lambda position: 10 + position.step)
    assert "Rolls back to the checkpoint of step 2 (roll-back 1 in a row, at most 3)" in caplog.text
    assert "skips steps 3 to 4 (25 utterances), continues at step 5" in caplog.text
    assert state.position == Position(4, 0, 4)

    saved = save(tmp_path / "checkpoint_000000004", state)
    assert read_info(saved).passed_over == ((3, 4),)
    train(cfg, state, records, 6)
    records.flush()
    other = tiny_state(cfg)
    load_checkpoint(good, other)
    other.position = Position(4, 0, 4)
    train(cfg, other, RunLog(str(tmp_path), 0, False), 6)
    assert state.digest() == other.digest()
    again = tiny_state(cfg)
    load_checkpoint(saved, again)
    train(cfg, again, records, 6)
    assert again.digest() == state.digest()


def test_too_many_in_succession_stop(cfg, tmp_path):
    cfg = replace(
        cfg, train=replace(cfg.train, not_finite=NotFiniteConfig("roll_back", max_roll_backs=2))
    )
    state = tiny_state(cfg)
    good = save(tmp_path / "checkpoint_000000000", state)
    for bad in (3, 4):
        roll_back(state, good, NotFiniteError(f"step {bad}: nan", bad), advance, lambda _: 1)
        assert state.position.step == bad
    with pytest.raises(
        NotFiniteError, match=r"step 9: nan\. 2 roll-backs in a row to step 0 .*max_roll_backs"
    ):
        roll_back(state, good, NotFiniteError("step 9: nan", 9), advance, lambda _: 1)


def test_a_good_scheduled_checkpoint_in_between_ends_a_succession():
    spans = pass_over((), restored=4, bad=7)
    assert spans == ((5, 7),)
    spans = pass_over(spans, restored=4, bad=9)
    assert spans == ((5, 7), (8, 9))
    assert in_succession(spans) == 2
    # on schedule, but of the same weights as step 4
    at_a_bad_step = pass_over(((5, 8),), restored=8, bad=9)
    assert in_succession(at_a_bad_step) == 2
    spans = pass_over(spans, restored=12, bad=13)
    assert spans == ((5, 7), (8, 9), (13, 13))
    assert in_succession(spans) == 1
    assert in_succession(()) == 0


def test_the_checkpoint_is_the_last_one_on_schedule_before_the_bad_step(cfg, tmp_path):
    state = tiny_state(cfg)
    assert scheduled_before(str(tmp_path), 5, 4) is None
    for step in (4, 6, 8):  # at 6 a node went
        state.position = Position(step)
        save(tmp_path / f"checkpoint_{step:09d}", state)
    found = {bad: scheduled_before(str(tmp_path), bad, 4) for bad in (4, 5, 7, 8, 9)}
    four, eight = (f"{tmp_path}/checkpoint_00000000{step}" for step in (4, 8))
    assert found == {4: None, 5: four, 7: four, 8: four, 9: eight}
    (Path(eight) / "g.safetensors").write_bytes(b"")
    assert scheduled_before(str(tmp_path), 9, 4) == four


def test_what_is_wrong_is_said_by_network():
    line = {
        "step": 7,
        "loss/g/total": 9.0,
        "loss/g/mel": 2.0,
        "loss/dur_disc/total": math.nan,
        "loss/dur_disc_r/0": math.nan,
        "loss/d_g/3": math.inf,
        "loss/d/total": math.inf,
        "grad_norm_g": 70.0,
        "grad_norm_d": math.inf,
        "grad_norm_dur": 1.0,
        "grad_norm_wd": 1.0,
        "lr": 0.1,
    }
    bad = faults(line, 50.0)
    assert sorted(bad) == sorted(
        [
            "loss/dur_disc/total",
            "loss/dur_disc_r/0",
            "loss/d_g/3",
            "loss/d/total",
            "grad_norm_g",
            "grad_norm_d",
        ]
    )
    assert "grad_norm_d" not in faults(line, None, {"grad_norm_d"})
    assert describe(line, bad, {0: "a, b", 1: "c"}, [1]) == (
        "step 7: network dur: loss/dur_disc/total nan, grad_norm_dur 1, loss/dur_disc_r/0 nan; "
        "network d: loss/d/total inf, grad_norm_d inf, loss/d_g/3 inf; "
        "network g: loss/g/total 9, grad_norm_g 70; "
        "micro-batch 1 holds c"
    )
    exploded = describe(line, ["grad_norm_g"], {0: "a, b", 1: "c"}, [])
    assert exploded == (
        "step 7: network g: loss/g/total 9, grad_norm_g 70; "
        "each micro-batch's losses are finite, so that any of them "
        "may be at fault; micro-batch 0 holds a, b; micro-batch 1 holds c"
    )
