"""What a run takes of a cluster."""

import pytest
import ray

from data.config import DataConfig
from job.on_ray.cluster import use_gpu
from job.on_ray.training import settled, worker_config
from job.settings.config import Config, ScalingSettings
from tests.deploy.test_cluster_files import scaling


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
