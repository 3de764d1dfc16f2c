"""The model of many GPUs: limits that can be reckoned by hand."""

import numpy as np
import pytest

from benchmarks.scaling import BUCKET, Network, model, slowest, sticks_out


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
