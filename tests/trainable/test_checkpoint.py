"""Checkpoints: everything needed to continue, checked before it is used."""

from dataclasses import replace

import pytest
import torch

from data.epoch_plan import Position
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from trainable.step import TrainingStep

INFO = CheckpointInfo(Position(1, 0, 1), "manifest", "code", {"torch": torch.__version__}, {"anna": 0}, 2)


@pytest.fixture(scope="module")
def cfg():
    return tiny_config(reduction="exact", micro_batches_per_step=1)


@pytest.fixture
def saved(cfg, tmp_path):
    state = tiny_state(cfg)
    TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    state.position = Position(1, 0, 1)
    save_checkpoint(tmp_path, state, INFO, "train: {}\n")
    return state, tmp_path


def test_a_restored_run_continues_with_the_same_bits(cfg, saved):
    state, folder = saved
    again = tiny_state(cfg)
    assert again.digest() != state.digest()
    assert load_checkpoint(folder, again) == INFO
    assert again.position == state.position
    for trained in (state, again):
        report = TrainingStep(trained, cfg.train, cfg.data)([(0, tiny_batch(cfg, 1))])
        trained.last = report.scalars["loss/g/total"].item()
    assert again.last == state.last
    assert again.digest() == state.digest()


@pytest.mark.parametrize("name", ["g.safetensors", "training.pt", "state.json", "config.yaml"])
def test_a_flipped_byte_is_found_and_the_file_named(saved, name):
    _, folder = saved
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_info(folder)


@pytest.mark.parametrize("name", ["d.safetensors", "checksums.json"])
def test_an_incomplete_checkpoint_is_refused(saved, name):
    _, folder = saved
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        read_info(folder)


def test_another_architecture_is_refused_and_a_tensor_named(cfg, saved):
    _, folder = saved
    other = replace(cfg, model=replace(cfg.model, filter_channels=32))
    with pytest.raises(CheckpointError, match=r"(?s)another architecture.*enc_p.*model\.\*"):
        load_checkpoint(folder, tiny_state(other))


def test_a_missing_network_is_named(cfg, tmp_path):
    state = tiny_state(replace(cfg, model=replace(cfg.model, use_duration_discriminator=False)))
    save_checkpoint(tmp_path, state, INFO, "")
    with pytest.raises(CheckpointError, match="`dur`"):
        load_checkpoint(tmp_path, tiny_state(cfg))
