"""Checkpoints: everything needed to continue, checked before it is used."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from data.plan.epoch_plan import Position
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.learning.step import TrainingStep
from trainable.run.checkpoint import (
    HostCopy,
    Snapshot,
    load_checkpoint,
    save_checkpoint,
    write_snapshot,
)
from trainable.run.format import CheckpointError, CheckpointInfo, read_info

pytestmark = pytest.mark.medium  # all save tiny networks, which takes seconds together

INFO = CheckpointInfo(
    Position(1, 0, 1), "manifest", "code", {"torch": torch.__version__}, {"anna": 0}, 2
)


@pytest.fixture(scope="module")
def cfg():
    return tiny_config(reduction="exact", micro_batches_per_step=1)


@pytest.fixture(scope="module")
def written(cfg, tmp_path_factory):
    state, folder = tiny_state(cfg), tmp_path_factory.mktemp("checkpoint")
    TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    state.position = Position(1, 0, 1)
    save_checkpoint(folder, state, INFO, "train: {}\n")
    return state, folder


@pytest.fixture
def folder(written, tmp_path):
    """A checkpoint, for this test alone."""
    return shutil.copytree(written[1], tmp_path, dirs_exist_ok=True)


@pytest.mark.medium
def test_a_restored_run_continues_with_the_same_bits(cfg, written, folder):
    state = copy.deepcopy(written[0])
    again = tiny_state(cfg)
    assert again.digest() != state.digest()
    assert load_checkpoint(folder, again) == INFO
    assert again.position == state.position
    for trained in (state, again):
        report = TrainingStep(trained, cfg.train, cfg.data)([(0, tiny_batch(cfg, 1))])
        trained.last = report.scalars["loss/g/total"].item()
    assert again.last == state.last
    assert again.digest() == state.digest()


CHANGES = [("fp32", "fp16"), ("bf16", "fp16"), ("fp16", "fp32"), ("fp16", "fp16")]


@pytest.mark.parametrize(("before", "now"), CHANGES)
def test_a_run_may_go_on_with_another_precision(before, now, tmp_path):
    then = tiny_state(tiny_config(precision=before))
    for scaler in then.scalers.values():
        scaler.scale(torch.ones(1))  # this and the next do something with fp16 alone
        scaler.update(1024.0)
    save_checkpoint(tmp_path, then, INFO, "")
    again = tiny_state(tiny_config(precision=now))
    scale = again.scalers["g"].get_scale()
    load_checkpoint(tmp_path, again)
    assert again.digest() == then.digest()
    assert again.scalers["g"].get_scale() == (1024.0 if before == now else scale)


@pytest.mark.medium
@pytest.mark.parametrize("before", ["exact", "fast"])
def test_a_run_may_go_on_without_the_duration_discriminator(before, cfg, tmp_path):
    then = tiny_state(tiny_config(reduction=before, micro_batches_per_step=1))
    TrainingStep(then, then.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    save_checkpoint(tmp_path, then, INFO, "")
    again = tiny_state(replace(cfg, model=replace(cfg.model, use_duration_discriminator=False)))
    load_checkpoint(tmp_path, again)
    report = TrainingStep(again, again.train, cfg.data)([(0, tiny_batch(cfg, 1))])
    assert report.scalars["grad_norm_g"].isfinite()


def test_scales_that_older_versions_kept_are_left_out(cfg, tmp_path):
    older = tiny_state(cfg)
    older.unused.training = {"reduction": {"g": {"emb_g.weight": 3.0}, "of": {"weight": -2.0}}}
    save_checkpoint(tmp_path, older, INFO, "")
    again = tiny_state(cfg)
    load_checkpoint(tmp_path, again)
    assert again.digest() == older.digest()
    assert again.state_dict()["reduction"] == {}


def one_step(state, cfg, seed: int) -> None:
    TrainingStep(state, state.train, cfg.data)([(0, tiny_batch(cfg, seed))])


def held(folder) -> dict:
    """What a checkpoint holds of the duration discriminator."""
    training = torch.load(folder / "training.pt", weights_only=True)
    sections = {name: own["dur"] for name, own in training.items() if "dur" in own}
    return sections | {"weights": load_file(folder / "dur.safetensors")}


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.medium
@pytest.mark.parametrize("middle", [("exact", "fp32"), ("fast", "bf16")])
def test_a_discriminator_that_was_switched_off_goes_on_where_it_was(middle, cfg, tmp_path):
    """On, off for two starts, and on again: weights, optimizer and the rest are what they were."""
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    state = tiny_state(cfg)
    one_step(state, cfg, 0)
    save_checkpoint(folders[0], state, INFO, "")
    at_first = held(folders[0])

    reduction, precision = middle
    train = replace(cfg.train, reduction=reduction, precision=precision)
    off = replace(cfg, train=train, model=replace(cfg.model, use_duration_discriminator=False))
    for before, after in ((0, 1), (1, 2)):
        without = tiny_state(off)
        load_checkpoint(folders[before], without)
        assert list(without.nets) == ["g", "d", "wd"]
        one_step(without, off, after)
        save_checkpoint(folders[after], without, INFO, "")
        read_info(folders[after])
        assert same(held(folders[after]), at_first)

    again = tiny_state(cfg)
    load_checkpoint(folders[2], again)
    assert not again.unused.weights
    assert same(again.nets["dur"].state_dict(), state.nets["dur"].state_dict())
    assert not same(again.nets["g"].state_dict(), state.nets["g"].state_dict())
    save_checkpoint(folders[3], again, INFO, "")
    assert same(held(folders[3]), at_first)
    one_step(again, cfg, 3)
    assert not same(again.nets["dur"].state_dict(), state.nets["dur"].state_dict())


@pytest.mark.medium
def test_a_parameter_that_was_frozen_keeps_its_optimizers_state(cfg, tmp_path):
    state = tiny_state(cfg)
    one_step(state, cfg, 0)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    save_checkpoint(first, state, INFO, "")
    frozen = tiny_state(replace(cfg, train=replace(cfg.train, freeze=("g.dec.*",))))
    load_checkpoint(first, frozen)
    one_step(frozen, cfg, 1)
    save_checkpoint(second, frozen, INFO, "")
    again = tiny_state(cfg)
    load_checkpoint(second, again)
    names = [key for key, _ in again.nets["g"].named_parameters()]
    moments, before = (each.state_dict()["moments"]["g"] for each in (again, state))
    assert all(same(moments[key], before[key]) for key in names if key.startswith("dec."))
    assert not any(same(moments[key], before[key]) for key in names if key.startswith("flow."))


@pytest.mark.parametrize("name", ["g.safetensors", "training.pt", "state.json", "config.yaml"])
def test_a_flipped_byte_is_found_and_the_file_named(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_info(folder)


@pytest.mark.parametrize("name", ["d.safetensors", "checksums.json"])
def test_an_incomplete_checkpoint_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        read_info(folder)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/hostname", "notes.txt", "g.safetensors/../x", ""]
)
def test_names_that_are_no_files_of_a_checkpoint_are_refused(folder, name):
    """Whoever could write checksums.json shall not learn what other files hold, by their hashes."""
    sums = json.loads((folder / "checksums.json").read_text())
    (folder / "checksums.json").write_text(json.dumps(sums | {name: "0" * 64}))
    with pytest.raises(CheckpointError, match="no file of a checkpoint"):
        read_info(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"g.safetensors": 1}', "\x00", '"x"'])
def test_checksums_that_say_nothing_are_refused(folder, content):
    (folder / "checksums.json").write_text(content)
    with pytest.raises(CheckpointError):
        read_info(folder)


def test_the_same_host_memory_is_used_again():
    host, given = HostCopy(), {"a": {"w": torch.ones(3)}, "step": 4, "list": [1]}
    first = host(given)
    given["a"]["w"] += 1
    assert first == {"a": {"w": first["a"]["w"]}, "step": 4, "list": [1]}
    assert first["a"]["w"].tolist() == [1, 1, 1]
    second = host(given)
    assert second["a"]["w"].data_ptr() == first["a"]["w"].data_ptr()
    assert second["a"]["w"].tolist() == [2, 2, 2]
    assert host({"a": {"w": torch.ones(2)}})["a"]["w"].tolist() == [1, 1]


def test_a_copy_on_a_cpu_does_not_touch_the_gpus_of_its_machine(monkeypatch):
    def touched(*_):
        raise AssertionError("this takes memory of the first GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("current_stream", "current_device", "synchronize", "init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert HostCopy()({"w": torch.ones(2)})["w"].tolist() == [1, 1]


def test_any_tensor_is_written_as_the_library_reads_it(cfg, tmp_path):
    tensors = {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "strided": torch.arange(6).view(2, 3).T,
        "half": torch.ones(3).half(),
        "bf16": torch.ones(2).bfloat16(),
        "flag": torch.tensor([True, False]),
    }
    write_snapshot(
        Snapshot({"g": tensors}, {}, INFO, ""), lambda name: (tmp_path / name).open("wb")
    )
    loaded = load_file(tmp_path / "g.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(
        loaded[key].dtype == t.dtype and torch.equal(loaded[key], t) for key, t in tensors.items()
    )


def test_another_architecture_is_refused_and_a_tensor_named(cfg, folder):
    other = replace(cfg, model=replace(cfg.model, filter_channels=32))
    with pytest.raises(CheckpointError, match=r"(?s)another architecture.*enc_p.*model\.\*"):
        load_checkpoint(folder, tiny_state(other))


def test_a_missing_network_is_named(cfg, tmp_path):
    state = tiny_state(replace(cfg, model=replace(cfg.model, use_duration_discriminator=False)))
    save_checkpoint(tmp_path, state, INFO, "")
    with pytest.raises(CheckpointError, match="`dur`"):
        load_checkpoint(tmp_path, tiny_state(cfg))
