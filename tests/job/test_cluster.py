"""What a run takes of a cluster."""

import pytest
import ray

from job import cluster
from job.cluster import use_gpu
from job.config import Config, ScalingConfig


@pytest.mark.parametrize(
    ("device", "has", "can_start", "takes"),
    [
        ("auto", {}, None, False),
        ("auto", {"GPU": 2.0}, None, True),
        ("auto", {}, {"CPU": 8, "GPU": 4}, True),  # from zero: no GPU node is up when the job begins
        ("auto", {}, {"CPU": 8}, False),
        ("cpu", {"GPU": 2.0}, {"GPU": 4}, False),
        ("cuda", {}, {"GPU": 4}, True),
        ("cuda", {}, None, None),
    ],
)
def test_gpus_that_can_be_started_count(monkeypatch, device, has, can_start, takes):
    monkeypatch.setattr(ray, "cluster_resources", lambda: has)
    monkeypatch.setattr(cluster.cluster_state, "get_max_resources_from_cluster_config", lambda: can_start)
    cfg = Config(scaling=ScalingConfig(device=device))
    if takes is None:
        with pytest.raises(ValueError, match=r"scaling\.device is cuda"):
            use_gpu(cfg)
    else:
        assert use_gpu(cfg) is takes
