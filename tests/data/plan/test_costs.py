"""How workers share the micro-batches of a step: all of them, evenly, and the same for all."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan.costs import shares
from data.plan.epoch_plan import plan_epoch
from data.settings.plan import CostConfig

COSTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=60)


def longest(costs: list[float], dealt: list[list[int]]) -> float:
    return max(sum(costs[j] for j in own) for own in dealt)


@settings(deadline=None, max_examples=200)
@given(COSTS, st.data())
def test_every_micro_batch_goes_to_one_worker(costs, data):
    G = len(costs)
    W = data.draw(st.integers(1, G), "W")
    dealt = shares(costs, W)
    assert sorted(j for own in dealt for j in own) == list(range(G))
    assert all(1 <= len(own) <= -(-G // W) and own == sorted(own) for own in dealt)
    assert len(dealt) == W
    assert dealt[0][0] == 0  # the first worker writes the images of the first micro-batch
    assert dealt == shares(list(costs), W)

    # Graham's bound, 4/3 of the best, holds against any other way
    in_turn = [list(range(rank, G, W)) for rank in range(W)]
    assert longest(costs, dealt) <= 4 / 3 * longest(costs, in_turn)


@given(st.integers(1, 60), st.data())
def test_equal_costs_are_dealt_in_turn(G, data):
    W = data.draw(st.integers(1, G), "W")
    assert shares([1.0] * G, W) == [list(range(rank, G, W)) for rank in range(W)]


def test_the_shares_of_a_plan_are_nearly_even():
    rng = np.random.default_rng(0)
    frames = np.clip(400 * np.exp(0.6 * rng.standard_normal(20_000)), 86, 1033).astype(np.int64)
    plan = plan_epoch(
        np.arange(len(frames)),
        frames,
        frames // 3,
        seed=0,
        epoch=0,
        micro_batches_per_step=16,
        cost=CostConfig(),
    )
    for W in (4, 8):
        even = []
        for step in range(plan.steps):
            costs = plan.costs[plan.begins[step] : plan.begins[step + 1]].tolist()
            even.append(sum(costs) / W / longest(costs, plan.shares(step, W)))
        assert np.mean(even) > 0.985
