"""As many trials at once as there is room for, and never so many that they wait for each other."""

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from data.config import DataConfig
from job.settings.config import Config
from tuning.capacity import HEAD, MOST, capacity, driver_resources, shared_out

CPU, GPU_WORKER = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("nodes", "needed", "trials"),
    [
        ([{"CPU": 3.0}], [CPU] * 3, 1),
        ([{"CPU": 2.0}], [CPU] * 3, 0),
        ([{"CPU": 8.0, "GPU": 4.0}] * 2, [GPU_WORKER] * 2 + [CPU] * 2, 4),
        ([{"CPU": 3.0, "GPU": 4.0}], [GPU_WORKER] * 2 + [CPU] * 2, 0),
        # what is left of two nodes makes no room for a third
        ([{"CPU": 3.0}, {"CPU": 3.0}], [{"CPU": 2.0}], 2),
    ],
)
def test_a_trial_has_room_if_each_of_its_processes_has_a_node(nodes, needed, trials):
    assert capacity(nodes, needed) == trials


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 3))
def test_all_trials_at_once_fit_and_one_more_does_not(cpus, workers, loaders):
    needed = [CPU] * (workers + loaders)
    assert capacity([{"CPU": float(n)} for n in cpus], needed) == sum(cpus) // len(needed)


def test_trials_that_take_nothing_are_refused():
    with pytest.raises(ValueError, match=r"scaling\.cpus_per_worker"):
        capacity([{"CPU": 1.0}], [{"CPU": 0.0}])


@pytest.mark.parametrize("at_once", range(1, MOST + 1))
def test_drivers_share_the_head_so_that_no_more_than_these_run_and_ray_keeps_some(at_once):
    share = driver_resources(at_once)[HEAD]
    assert "CPU" not in driver_resources(at_once)
    assert at_once * share <= 1 - 0.001 * (at_once + 3)
    assert (at_once + 1) * share > 1


@pytest.mark.parametrize(
    ("cpus", "asked", "at_once", "loaders", "trials"),
    [
        (64, "auto", None, 2, 8),  # what a run alone would have
        (16, "auto", None, 1, 8),  # a GPU for each trial comes before its second loader
        (16, "auto", 4, 2, 4),
        (16, 3, None, 3, 4),
        (9, "auto", None, 1, 4),
        (2, "auto", 4, 1, 4),  # more than fit: the cluster is to grow
    ],
)
def test_trials_share_what_the_cluster_has_for_loaders(
    monkeypatch, cpus, asked, at_once, loaders, trials
):
    node = {"CPU": float(cpus), "GPU": 8.0}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: node)
    found, number = shared_out(Config(data=DataConfig(loaders=asked)), at_once)
    assert (found.data.loaders, number) == (loaders, trials)


@pytest.mark.parametrize(
    ("gib", "asked", "trials"),
    [(64, None, 8), (15, None, 8), (12, None, 6), (3, None, 1), (1, None, 1), (3, 4, 4)],
)
def test_the_memory_of_the_head_bounds_trials_unless_somebody_knows_better(
    monkeypatch, gib, asked, trials
):
    """Ray keeps three tenths of it for the object store."""
    head = {"CPU": 4.0, HEAD: 1.0, "memory": 0.7 * gib * 2**30}
    head["object_store_memory"] = 0.3 * gib * 2**30
    others = {"CPU": 16.0, "GPU": 8.0, "memory": 2.0**30}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    nodes = [{"Alive": True, "Resources": each} for each in (others, head)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 20.0, "GPU": 8.0})
    assert shared_out(Config(data=DataConfig(loaders=1)), asked)[1] == trials
