"""What workers compare before they train, and what they read once."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.plan.epoch_plan import EpochPlan
from data.shards.manifest import read_manifest
from data.stream.loading import row_loader
from data.stream.spec import manifest_of
from tests.data.stream.corpus import UTTERANCES, make_corpus
from tests.tiny import tiny_config
from tests.trainable.worker.fakes import FakeWorker, worker_config
from trainable.worker import setup
from trainable.worker.progress import NAMES_SHOWN, announce
from trainable.worker.setup import check_devices, read_shared_manifest


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
