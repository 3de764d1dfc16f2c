"""What benchmarks.stream makes of its samples, and the groups that it simulates."""

import numpy as np
import pytest

from benchmarks.stream import STEP_S, per_micro_batch, share_of
from benchmarks.stream_clock import Costs, Run, waits_of

CHEAP = Costs([0.006], [0.005], [0.004], 8.0)


def simulated(costs: Costs = CHEAP, groups: int = 1, loaders: int = 4, **other: int) -> np.ndarray:
    shape = {"ahead": 8, "steps": 256, "steps_per_dataset": 256} | other
    return waits_of(Run(groups, 8, loaders, step_s=STEP_S, **shape), costs)


def steady(coordination: float, loader: float, **other: int) -> float:
    """The share of waiting in the middle of a dataset."""
    return share_of(simulated(Costs([coordination], [loader], [0.004], 8.0), **other)[100:])


def test_processes_that_end_do_not_count():
    spent = [0.0, 0.8, 1.6, 9.0, 0.2, 1.0, 1.8, 2.6]
    samples = [(100 * i, {"loader": seconds}) for i, seconds in enumerate(spent)]
    assert per_micro_batch(samples)["loader"] == pytest.approx([1e-3] * 2 + [9.25e-3] + [1e-3] * 3)
    assert per_micro_batch([samples[-1], samples[-1]])["loader"] == []


def test_ranks_wait_for_nothing_but_their_first_step():
    waits = simulated(steps=640, steps_per_dataset=128)
    assert 0 < waits[0] < 0.05
    assert not waits[1:].any()
    assert 0 < share_of(waits) < 0.001


def test_ranks_wait_for_loaders_that_are_too_slow():
    assert steady(0.006, 0.05, loaders=1) == pytest.approx(1 - STEP_S / (8 * 0.05), abs=0.01)
    assert steady(0.006, 0.05, loaders=4) == 0


def test_ranks_wait_for_a_coordinator_that_is_too_slow():
    assert steady(0.025, 0.005) == 0
    assert steady(0.034, 0.005) > 1 - STEP_S / (8 * 0.034)


def test_a_loader_keeps_up_if_all_that_it_has_made_is_taken_at_once():
    assert steady(0.008, 0.004, loaders=1) == 0
    assert steady(0.008, 0.004, loaders=1, buffer=2) > 0.04


def test_ranks_load_their_own_steps_while_a_dataset_is_late():
    waits = simulated(Costs([0.006], [0.02], [0.004], 60.0), steps_per_dataset=128)
    assert waits.max() < 0.1
    never = simulated(Costs([0.006], [0.3], [0.004], 1e6), steps=64)
    assert share_of(never[1:]) == pytest.approx(0.07 / 0.32, abs=0.01)  # a loader's work per rank


def test_more_groups_wait_for_the_last_of_them():
    uneven = Costs([0.006] * 9 + [0.4], [0.005], [0.004], 8.0)
    shares = [share_of(simulated(uneven, groups, steps=128)) for groups in (1, 8)]
    assert 0 < shares[0] < shares[1]
