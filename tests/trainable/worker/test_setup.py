"""What workers compare before they train, and what they read once."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from data.plan.epoch_plan import EpochPlan, Position
from data.shards.manifest import read_manifest
from data.stream.loading import row_loader
from data.stream.spec import manifest_of
from tests.data.stream.corpus import UTTERANCES, make_corpus
from tests.tiny import tiny_config, tiny_state
from tests.trainable.run.test_checkpoint import INFO
from tests.trainable.worker.fakes import FakeWorker, worker_config
from trainable.run.checkpoint import save_checkpoint
from trainable.worker import setup
from trainable.worker.progress import NAMES_SHOWN, announce
from trainable.worker.setup import check_devices, read_shared_manifest, with_precision


def of(reduction: str):
    return worker_config(tiny_config(reduction=reduction), "runs/x")


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that gives the workers GPUs, by rank."""

    def give(*names: str) -> FakeWorker:
        worker = FakeWorker()
        worker.device = torch.device("cuda")
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: names[0])
        monkeypatch.setattr(setup, "all_gather", lambda own: [own, *names[1:]])
        return worker

    return give


def test_exact_mode_refuses_devices_of_two_kinds(gpus):
    worker = gpus("NVIDIA L4", "NVIDIA A10G", "NVIDIA L4")
    with pytest.raises(ValueError, match=r"1 x NVIDIA A10G, 2 x NVIDIA L4: .*reduction fast"):
        check_devices(of("exact"), worker)
    check_devices(of("fast"), worker)
    check_devices(of("exact"), gpus("NVIDIA L4", "NVIDIA L4"))


def test_the_check_comes_before_anything_is_built(gpus, monkeypatch):
    monkeypatch.setattr(setup, "start_logging", lambda folder, rank: None)
    monkeypatch.setattr(setup, "set_up_torch", lambda *_: None)
    monkeypatch.setattr(setup, "on_all_ranks", lambda action, seconds: None)
    with pytest.raises(ValueError, match="devices of one kind"):
        setup.set_up(of("exact"), gpus("NVIDIA L4", "NVIDIA T4"))


@pytest.fixture
def found(monkeypatch, tmp_path):
    """Return what `auto` becomes on GPUs, by whether each has bf16, behind a checkpoint of some."""

    def settled(*capable: bool, began: str | None = None):
        name = {True: "NVIDIA L4", False: "Tesla T4"}
        owned = [(name[own], own) for own in capable]
        monkeypatch.setattr(setup, "bf16_of", lambda _: owned[0])
        monkeypatch.setattr(setup, "all_gather", lambda own: owned)
        if began is not None:
            state = tiny_state(tiny_config())
            state.position = Position(2, 0, 2)
            folder = tmp_path / "checkpoint_000000002"
            folder.mkdir(exist_ok=True)
            text = f"train: {{precision: {began}}}\n"
            save_checkpoint(folder, state, replace(INFO, position=state.position), text)
        cfg = worker_config(tiny_config(precision="auto"), str(tmp_path))
        return with_precision(cfg, FakeWorker())

    return settled


@pytest.mark.parametrize(
    ("capable", "chosen", "told"),
    [
        ((True, True), "bf16", "auto: bf16, every worker's GPU has it"),
        ((True, False), "fp32", "auto: fp32, Tesla T4 has no bf16"),
    ],
)
def test_auto_takes_bf16_where_every_gpu_has_it(capable, chosen, told, found, caplog):
    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        cfg = found(*capable)
    assert cfg.train.precision == chosen
    # what its checkpoints say, and so what evaluates them and goes on
    assert yaml.safe_load(cfg.config_yaml) == {"train": {"precision": chosen}}
    assert told in caplog.text


@pytest.mark.parametrize(
    ("capable", "began"), [((True,), "fp32"), ((True, True), "bf16"), ((False,), "fp16")]
)
def test_a_run_of_auto_keeps_what_it_began_with(capable, began, found):
    assert found(*capable, began=began).train.precision == began


def test_a_run_of_bf16_does_not_go_on_where_there_is_none(found):
    with pytest.raises(ValueError, match=r"began with bf16, and Tesla T4 has none: .*fp32"):
        found(True, False, began="bf16")


def test_networks_outside_of_a_worker_are_told_what_to_set():
    with pytest.raises(ValueError, match=r"precision is auto, .*: give fp32, bf16, fp16 here"):
        tiny_state(tiny_config(precision="auto"))


def test_cpus_differ_by_their_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(setup, "all_gather", lambda own: [own, "cpu with AVX2"])
    with pytest.raises(ValueError, match="1 x cpu with AVX2, 1 x cpu with AVX512"):
        check_devices(of("exact"), FakeWorker())


def test_a_worker_reads_the_manifest_once(tmp_path, monkeypatch):
    spec = make_corpus(str(tmp_path))
    cfg = tiny_config()
    told = worker_config(replace(cfg, data=replace(cfg.data, shards=str(tmp_path))), "runs/x")
    manifest = read_shared_manifest(told)
    assert manifest_of(spec) is manifest
    assert row_loader(spec).manifest is manifest


def test_names_are_read_for_a_message_and_only_so_many(tmp_path, caplog):
    manifest = read_manifest(make_corpus(str(tmp_path)).data.shards)
    ids = manifest.column("id").tolist()
    few, many = np.arange(3), np.resize(np.arange(UTTERANCES), 5 * NAMES_SHOWN)
    offsets, begins, costs = np.array([0, 2, 3]), np.array([0, 1, 2]), np.ones(2)
    plan = EpochPlan(few, offsets, begins, fill=1, left_out=many, costs=costs)
    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        announce(2, plan, manifest.names)
    _, filled, left_out = caplog.messages
    assert filled == "epoch 2 fills its last step with 1 utterances: " + ids[2]
    shown = ", ".join(ids * (NAMES_SHOWN // UTTERANCES))
    assert left_out == f"epoch 2 leaves out {len(many)} utterances: {shown}, ..."
