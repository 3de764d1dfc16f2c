"""The model of many GPUs: limits that can be reckoned by hand."""

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.scaling import BUCKET, Network, efficiency, model, planned, slowest, sticks_out
from data.settings.plan import PlanConfig


def test_all_reduce_of_a_ring():
    network = Network(gpus=8, inside=100e9, between=10e9, hop=0.0)
    assert network.all_reduce(8e9, 1) == 0
    assert network.all_reduce(8e9, 8) == pytest.approx(2 * 7 / 8 * 8e9 / 100e9)
    assert network.all_reduce(8e9, 16) == pytest.approx(
        2 * 7 / 8 * 8e9 / 100e9 + 2 * 1 / 2 * 1e9 / 10e9
    )


def test_what_sticks_out():
    """A fast network leaves the last bucket; one slower than the backward pass nearly all."""
    fast, slow = (lambda size: size / 1e12), (lambda size: size / BUCKET)
    assert sticks_out(1.0, 0.0, 4 * BUCKET, fast) == pytest.approx(fast(BUCKET))
    assert sticks_out(1.0, 0.5, 4 * BUCKET, slow) == pytest.approx(0.625 + 4 - 1)
    assert sticks_out(1.0, 0.0, 0.5 * BUCKET, slow) == pytest.approx(0.5)


def test_workers_wait_for_the_slowest():
    assert slowest(np.ones(100), 64) == 1
    cost = np.array([1.0] * 9 + [2.0])
    assert slowest(cost, 1) == pytest.approx(1.1, abs=0.05)
    assert slowest(cost, 64) == pytest.approx(2.0, abs=0.01)
    assert model(0.25, 8, np.ones(10), Network())["efficiency"] > 0.99


def test_workers_of_like_micro_batches_work_all_the_time():
    assert efficiency(np.ones(16), 8, 8) == 1
    assert efficiency(np.array([1.0, 3.0] * 8), 4, 4) == pytest.approx(2 / 3)
    assert efficiency(np.array([1.0, 3.0] * 8), 4, 2) == 1  # one of each for both
    assert efficiency(np.ones(16), 4, 3) == pytest.approx(2 / 3)


@pytest.mark.medium
def test_the_default_plan_keeps_workers_busy(monkeypatch):
    monkeypatch.setattr(scaling, "MILLION", 20_000)
    by_cost, by_frames = (planned(PlanConfig(mode=mode).settled()) for mode in ("cost", "budget"))
    assert min(by_cost["efficiency"].values()) >= 0.96
    assert by_cost["efficiency_off_20"] >= 0.93
    assert min(by_cost["shared"].values()) >= 0.95
    assert by_cost["efficiency_off_20_combined"]["8"] < by_cost["efficiency_off_20"]
    assert max(by_frames["efficiency"].values()) < 0.8


def test_what_is_sent_later_sticks_out_further():
    def reduce(size):
        return size / 1e9

    at_once, later = (sticks_out(1.0, 0.5, 4 * BUCKET, reduce, lag) for lag in (0, 1))
    assert later == pytest.approx(2 * reduce(BUCKET))
    assert at_once == pytest.approx(reduce(BUCKET))


def test_exact_gradients_are_as_many_bytes_and_half_as_many_stick_out_less():
    slow = Network(gpus=1, between=1e9, hop=0.0)
    of_one, of_eight = (model(0.25, 4, np.ones(80), slow, own) for own in (1, 8))
    assert of_one["sticks_out"] < of_one["sticks_out_exact"] < 1.1 * of_one["sticks_out"]
    assert of_one["step_fast_bf16"] < of_one["step"]
    assert of_eight["sticks_out"] == of_one["sticks_out"]
    assert of_one["efficiency"] < 0.5 < 0.75 < of_eight["efficiency"]
