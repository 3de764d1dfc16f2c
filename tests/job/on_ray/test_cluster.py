"""What a run takes of a cluster."""

from dataclasses import replace

import pytest
import ray

from data.config import DataConfig
from job.on_ray.cluster import check_device, use_gpu
from job.on_ray.training import loaders_for, settled, worker_config
from job.settings.config import Config, ScalingSettings
from tests.deploy.test_cluster_files import preset, scaling


@pytest.mark.parametrize(
    ("device", "gpus", "address", "takes"),
    [
        ("auto", 0, "", False),
        ("auto", 2, "", True),
        ("auto", 0, "10.0.0.1:6379", False),
        ("cpu", 2, "10.0.0.1:6379", False),
        ("cuda", 2, "", True),
        ("cuda", 0, "10.0.0.1:6379", True),  # from zero: no GPU node is up when the job begins
        ("cuda", 0, "", None),
    ],
)
def test_who_takes_a_gpu(monkeypatch, device, gpus, address, takes):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(gpus)} if gpus else {})
    cfg = Config(scaling=ScalingSettings(device=device))
    if takes is None:
        with pytest.raises(ValueError, match=r"scaling\.device is cuda"):
            use_gpu(cfg)
    else:
        assert use_gpu(cfg) is takes


def test_a_run_that_finds_no_gpu_says_so(monkeypatch, capsys):
    monkeypatch.setattr(ray, "cluster_resources", dict)
    check_device(Config(scaling=ScalingSettings(device="auto")))
    assert capsys.readouterr().out == (
        "note: scaling.device is auto and no GPU is up: trains on CPUs\n"
    )
    check_device(Config(scaling=ScalingSettings(device="cpu")))
    assert capsys.readouterr().out == ""


def test_the_clusters_preset_wants_gpus_though_none_is_up():
    assert scaling().device == "cuda"


@pytest.mark.parametrize(
    ("device", "gpus", "asked", "where"),
    [
        ("auto", 0, "auto", "pipeline"),
        ("auto", 1, "auto", "device"),
        ("cpu", 1, "auto", "pipeline"),
        ("cuda", 0, "auto", "device"),
        ("auto", 1, "shards", "shards"),
        ("auto", 1, "pipeline", "pipeline"),
        ("auto", 0, "device", "device"),
    ],
)
def test_where_spectrograms_are_computed_is_written_to_what_the_run_keeps(
    monkeypatch, device, gpus, asked, where
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(gpus)} if gpus else {})
    data = DataConfig(spectrogram_on=asked)
    cfg = settled(Config(data=data, scaling=ScalingSettings(device=device)))
    told = worker_config(cfg, owner="")
    assert told.data.spectrogram_on == where
    assert f"spectrogram_on: {where}" in told.config_yaml


def settled_loaders(monkeypatch, resources, asked="auto", **scaling) -> int:
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    cfg = settled(Config(data=DataConfig(loaders=asked), scaling=ScalingSettings(**scaling)))
    told = worker_config(cfg, owner="")
    assert f"loaders: {told.data.loaders}\n" in told.config_yaml
    return told.data.loaders


@pytest.mark.parametrize(
    ("cpus", "gpus", "scaling", "loaders"),
    [
        (3, 0, {"num_workers": 2}, 1),  # the demo on two cores
        (64, 0, {"num_workers": 2}, 1),
        (64, 0, {"num_workers": 32}, 4),
        (34, 0, {"num_workers": 32}, 2),  # what the workers leave
        (32, 0, {"num_workers": [1, 32]}, 1),  # one at least, as before the last worker comes
        (16, 1, {}, 2),
        (2, 1, {}, 1),
        (128, 8, {"num_workers": 8}, 16),
        (20, 8, {"num_workers": 8}, 12),
        (20, 8, {"num_workers": 8, "cpus_per_worker": 2.0}, 4),
        (16, 1, {"num_workers": [1, 4]}, 8),  # the others come with CPUs of their own
        (16, 4, {"num_workers": 4, "device": "cpu"}, 1),
        (32, 4, {"num_workers": 4, "loader_resources": {"data": 2}}, 3),
    ],
)
def test_loaders_follow_from_gpus_and_cpus_beside_the_workers(
    monkeypatch, cpus, gpus, scaling, loaders
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    resources = {"CPU": float(cpus), "GPU": float(gpus), "data": 6.0}
    assert settled_loaders(monkeypatch, resources, **scaling) == loaders
    assert settled_loaders(monkeypatch, resources, asked=5, **scaling) == 5


def test_loaders_of_a_cluster_that_is_still_to_start_are_those_that_the_workers_need(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    asked = preset()
    asked = replace(asked, data=replace(asked.data, loaders="auto"))
    # nothing is up; GPUs of an earlier job, and no data node; all is up
    for resources in ({}, {"CPU": 4, "GPU": 4, "trainer": 4}, {"CPU": 12, "GPU": 4, "data": 8}):
        assert loaders_for(asked, resources) == preset().data.loaders == 8
    # never those of the workers
    assert loaders_for(asked, {"CPU": 9, "GPU": 4, "data": 8}) == 5
