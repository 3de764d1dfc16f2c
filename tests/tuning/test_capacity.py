"""As many trials at once as there is room for, and never so many that they wait for each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.capacity import HEAD, MOST, capacity, driver_resources

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
