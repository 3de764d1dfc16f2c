"""Where a run begins: its newest good checkpoint, other weights, or behind a bad step."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.plan.epoch_plan import Position
from data.plan.history import Change
from data.settings.plan import PadTo
from data.stream.spec import StreamSpec
from tests.tiny import tiny_config, tiny_state
from tests.trainable.run.test_checkpoint import INFO
from tests.trainable.weights.test_warm_start import publish
from tests.trainable.worker.fakes import schedule, worker_config
from trainable.config import CheckpointConfig
from trainable.learning.not_finite import NotFiniteError
from trainable.run.checkpoint import save_checkpoint
from trainable.run.saver import Saver
from trainable.worker.resume import restore_before, resume_or_start

DIGEST = "d" * 64


@pytest.fixture(autouse=True)
def logged(caplog):
    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        yield caplog


@pytest.fixture
def cfg(tmp_path):
    return worker_config(tiny_config(), str(tmp_path / "run"))


def spec_of(cfg, micro_batches: int = 4) -> StreamSpec:
    return StreamSpec.of_new_run(cfg.data, DIGEST, 1, micro_batches, 8)


def save(cfg, state, position: Position, **changes) -> None:
    folder = Path(cfg.folder, f"checkpoint_{position.step:09d}")
    folder.mkdir(parents=True)
    state.position = position
    info = replace(INFO, position=position, manifest=DIGEST, **changes)
    save_checkpoint(folder, state, info, "train: {seed: 1}\n")


def resume(cfg, state, spec=None) -> tuple[StreamSpec, Saver]:
    saver = Saver(cfg.folder, CheckpointConfig())
    return resume_or_start(cfg, 0, spec or spec_of(cfg), state, saver), saver


@pytest.mark.medium
def test_a_run_starts_from_other_weights(tmp_path, caplog):
    """The networks themselves; optimizers and position stay those of a new run."""
    published = tiny_state(tiny_config(seed=1))
    weights = tmp_path / "weights"
    weights.mkdir()
    for name, net in published.nets.items():
        publish(weights, f"{name.upper()}_0.pth", net)
    cfg = worker_config(tiny_config(seed=2, init_from=str(weights)), str(tmp_path / "run"))
    state = tiny_state(tiny_config(seed=2))
    assert state.digest() != published.digest()
    resume(cfg, state)
    assert state.digest() == published.digest()
    for name, net in state.nets.items():
        tensors = len(net.state_dict())
        assert f"{name.upper()}_0.pth: {tensors} of {tensors} tensors are taken over" in caplog.text
        assert not state.optimizers[name].state
    assert state.position.step == 0
    assert f"starts from {weights}" in caplog.text


def test_a_run_starts_from_random_weights(cfg, caplog):
    state = tiny_state(tiny_config())
    before = state.digest()
    spec, saver = resume(cfg, state)
    assert spec == spec_of(cfg)
    assert (state.digest(), saver.resumed) == (before, -1)
    assert "starts from random weights" in caplog.text


@pytest.mark.medium
def test_it_resumes_from_the_newest_good_one(cfg, caplog):
    written = tiny_state(tiny_config(seed=7))
    for step in (10, 20, 30):
        save(cfg, written, Position(step, 1, step - 8))
    Path(cfg.folder, "checkpoint_000000030/g.safetensors").write_bytes(b"damaged")
    state = tiny_state(tiny_config())
    spec, saver = resume(cfg, state)
    assert state.digest() == written.digest()
    assert state.position == Position(20, 1, 12)
    assert saver.resumed == 20
    assert spec == spec_of(cfg)
    assert "skips the checkpoint" in caplog.text
    assert f"resumes at step 20 from {cfg.folder}/checkpoint_000000020" in caplog.text


def test_what_differs_is_logged(cfg, caplog):
    save(cfg, tiny_state(tiny_config()), Position(10))
    resume(
        replace(cfg, config_yaml="train: {seed: 2}\n", code_version="new"),
        tiny_state(tiny_config()),
    )
    assert "resumes with code new; the checkpoint was written by code" in caplog.text
    assert "resumes with other settings: train.seed 1 -> 2" in caplog.text


def test_other_data_is_refused(cfg):
    save(cfg, tiny_state(tiny_config()), Position(10))
    other = replace(spec_of(cfg), digest="e" * 64)
    with pytest.raises(ValueError, match=r"manifest dddddddddddd, .* has eeeeeeeeeeee\): restore"):
        resume(cfg, tiny_state(tiny_config()), other)


def test_a_run_starts_from_another_with_its_speakers(tmp_path, caplog):
    """`train.init_from: runs/OLD`: each speaker keeps its voice, whatever its row is now."""
    old = worker_config(tiny_config(), str(tmp_path / "old"))
    written = tiny_state(tiny_config(seed=7))
    save(old, written, Position(10), speakers={"anna": 0, "zoe": 1})
    cfg = worker_config(tiny_config(init_from=old.folder), str(tmp_path / "run"))
    state = tiny_state(tiny_config(seed=2))
    own = state.nets["g"].emb_g.weight.detach().clone()
    saver = Saver(cfg.folder, CheckpointConfig())
    resume_or_start(cfg, 0, spec_of(cfg), state, saver, {"anna": 0, "ben": 1, "zoe": 2})
    table, theirs = state.nets["g"].emb_g.weight, written.nets["g"].emb_g.weight
    assert torch.equal(table[[0, 2]], theirs[[0, 1]])
    assert torch.equal(table[1], own[1])
    assert "2 speakers are taken over, 1 are new and keep their initial rows (ben)" in caplog.text


@pytest.mark.medium
def test_shards_that_number_speakers_otherwise_are_refused(cfg):
    """The same utterances, prepared from scratch: their digest is the same, their numbers not."""
    save(cfg, tiny_state(tiny_config()), Position(10), speakers={"anna": 0, "zoe": 1, "ben": 2})
    saver = Saver(cfg.folder, CheckpointConfig())
    now = {"anna": 0, "ben": 1, "zoe": 2}
    with pytest.raises(ValueError, match=r"numbers speakers otherwise .*zoe 1 -> 2, ben 2 -> 1"):
        resume_or_start(cfg, 0, spec_of(cfg), tiny_state(tiny_config()), saver, now)
    resume_or_start(
        cfg, 0, spec_of(cfg), tiny_state(tiny_config()), saver, {"anna": 0, "zoe": 1, "ben": 2}
    )


def test_what_is_not_trained_is_kept_and_told_of(cfg, caplog):
    save(cfg, tiny_state(tiny_config()), Position(10))
    model = replace(cfg.model, use_duration_discriminator=False)
    state = tiny_state(replace(tiny_config(), model=model))
    resume(cfg, state)
    assert list(state.unused.weights) == ["dur"]
    assert "not trained in this start, kept in the checkpoints as they are: dur" in caplog.text


def test_a_changed_cut_holds_from_here_on(cfg, caplog):
    before = spec_of(cfg)
    save(cfg, tiny_state(tiny_config()), Position(10, 0, 10), history=before.history)
    now = spec_of(cfg, micro_batches=2)
    spec, _ = resume(cfg, tiny_state(tiny_config()), now)
    assert spec.history == (*before.history, Change(0, 10, now.cut))
    assert "what epoch 0 has not used yet is planned again" in caplog.text


def test_other_multiples_to_pad_to_hold_from_here_on_as_any_other_change_of_the_plan(cfg, caplog):
    """`data.plan.pad_to` decides what fits a micro-batch: steps that are done stay as they were."""
    before = spec_of(cfg)
    save(cfg, tiny_state(tiny_config()), Position(10, 0, 10), history=before.history)
    plan = replace(cfg.data.plan, pad_to=PadTo(frames=64, tokens=8))
    padded = replace(cfg, data=replace(cfg.data, plan=plan))
    spec, _ = resume(padded, tiny_state(tiny_config()))
    assert spec.history == (*before.history, Change(0, 10, replace(before.cut, plan=plan)))
    told = [line for line in caplog.messages if "planned again" in line]
    assert len(told) == 1
    assert "\n" not in told[0]


def test_there_may_be_nothing_to_roll_back_to(cfg):
    state = tiny_state(tiny_config())
    with pytest.raises(
        NotFiniteError, match=r"step 3: nan\. No checkpoint .* nothing to roll back"
    ):
        restore_before(NotFiniteError("step 3: nan", 3), cfg, 0, state, schedule(10))


def begun_from(folder: Path, number: int, tmp_path: Path, **train):
    """A state that began with G_<number>.pth of the reference's 8th epoch."""
    folder.mkdir(exist_ok=True)
    publish(folder, f"G_{number}.pth", tiny_state(tiny_config(seed=1)).nets["g"], iteration=8)
    changes = {"max_steps": 10**6, "lr_decay": 0.5, "learning_rate": 1e-3} | train
    settings = tiny_config(init_from=str(folder), **changes)
    state = tiny_state(settings)
    resume(worker_config(settings, str(tmp_path / "run")), state)
    state.prepare_step()
    return state


@pytest.mark.medium
def test_a_run_goes_on_with_a_model_of_the_reference(tmp_path, caplog):
    """Step and epoch, so alignment noise and learning rate, are where they were there."""
    state = begun_from(tmp_path / "weights", 3000, tmp_path)
    # epochs are counted from 1 there, and `iteration` is the one that was under way
    assert state.position == Position(3000, 7, 0)
    assert state.nets["g"].search.noise == pytest.approx(0.01 - 2e-6 * 3000)
    assert state.optimizers["g"].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**7)
    assert "goes on at step 3000, epoch 7" in caplog.text
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    alone = "; ".join(f"{name}: all, it has no file" for name in ("d", "wd", "dur"))
    assert warnings[0].endswith(f"leaves initial values in {alone}")


@pytest.mark.medium
def test_the_first_step_may_be_given(tmp_path):
    assert begun_from(tmp_path / "a", 3000, tmp_path, init_step=0).position == Position()
    assert begun_from(tmp_path / "a", 3000, tmp_path, init_step=5).position == Position(5, 7, 0)
    assert begun_from(tmp_path / "b", 0, tmp_path).position == Position()


@pytest.mark.medium
def test_learning_rates_that_are_taken_over_do_not_decay_twice(tmp_path):
    for name, net in tiny_state(tiny_config(seed=1)).nets.items():
        (tmp_path / "w").mkdir(exist_ok=True)
        publish(tmp_path / "w", f"{name.upper()}_3000.pth", net, iteration=8)
    cfg = tiny_config(
        init_from=str(tmp_path / "w"), skip_optimizer=False, max_steps=10**6, lr_decay=0.5
    )
    state = tiny_state(cfg)
    resume(worker_config(cfg, str(tmp_path / "run")), state)
    state.prepare_step()
    # what AdamW has unless told otherwise, as the files say
    assert state.optimizers["g"].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_weights_behind_the_last_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"begins at step 3000, and train\.max_steps 3000 counts"):
        begun_from(tmp_path / "weights", 3000, tmp_path, max_steps=3000)
    with pytest.raises(ValueError, match=r"train\.init_step is 9: train\.max_steps 9 must be bey"):
        tiny_config(init_from="x", init_step=9, max_steps=9)
    with pytest.raises(ValueError, match=r"train\.init_step is 9: .* give train\.init_from"):
        tiny_config(init_step=9)
