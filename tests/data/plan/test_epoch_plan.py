"""The epoch plan: every utterance exactly once, like lengths together, and what it costs."""

import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan import epoch_plan
from data.plan.epoch_plan import EpochPlan, plan_epoch
from data.settings.plan import CostConfig


def batches(plan: EpochPlan) -> list[tuple[int, ...]]:
    G = np.diff(plan.begins)
    return [tuple(plan.micro_batch(s, j).tolist()) for s in range(plan.steps) for j in range(G[s])]


def lengths(n: int, seed: int, sigma: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = np.maximum(1, 400 * np.exp(sigma * rng.standard_normal(n))).astype(np.int64)
    return frames, np.maximum(1, frames * 0.3 * np.exp(rng.normal(0, 0.15, n))).astype(np.int64)


def make(frames, phones, seed=0, epoch=0, G=4, **options) -> EpochPlan:
    settings = {"max_frames": 6000, "max_utterances": 32} | options
    return plan_epoch(
        np.arange(len(frames)) + 1000,
        frames,
        phones,
        seed=seed,
        epoch=epoch,
        micro_batches_per_step=G,
        **settings,
    )


costs = st.builds(
    CostConfig,
    budget=st.floats(50, 9000),
    micro_batch=st.floats(0, 49),
    utterance=st.floats(0, 500),
    frame=st.floats(0.01, 1),
    cell=st.floats(0, 1e-3),
)


def cost_of(cost: CostConfig, utterances: int, frames: int) -> float:
    """The formula of docs/architecture.md."""
    each = cost.utterance + cost.frame * frames + cost.cell * frames**2
    return cost.micro_batch + utterances * each


@settings(deadline=None, max_examples=60)
@given(
    frames=st.lists(st.integers(1, 3000), min_size=1, max_size=200),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
    G=st.integers(1, 16),
    max_frames=st.none() | st.integers(1, 9000),
    max_utterances=st.none() | st.integers(1, 40),
    max_cells=st.none() | st.integers(1, 2_000_000),
    cost=st.none() | costs,
    min_frames=st.integers(0, 50),
)
def test_every_utterance_exactly_once_but_for_the_stated_fill(
    frames, seed, epoch, G, max_frames, max_utterances, max_cells, cost, min_frames
):
    frames = np.asarray(frames)
    phones = 1 + frames * 7919 % 300
    if (frames < min_frames).all():
        with pytest.raises(ValueError, match="segment_size"):
            make(frames, phones, seed, epoch, G, min_frames=min_frames)
        return
    budget = {"max_frames": max_frames, "max_utterances": max_utterances, "max_cells": max_cells}
    budget["cost"] = cost
    plan = make(frames, phones, seed, epoch, G, min_frames=min_frames, **budget)
    made = batches(plan)
    assert len(made) == plan.steps * G
    used = [i for batch in made[: len(made) - plan.fill] for i in batch]
    assert sorted(used + plan.left_out.tolist()) == [i + 1000 for i in range(len(frames))]
    assert set(plan.left_out - 1000) == set(np.flatnonzero(frames < min_frames))
    assert plan.fill < G or len(made) == G  # no more fill than the last step needs
    assert plan.filled_rows().tolist() == [
        i for batch in made[len(made) - plan.fill :] for i in batch
    ]
    for batch, predicted in zip(made, plan.costs, strict=True):
        longest = max(frames[i - 1000] for i in batch)
        most = max(phones[i - 1000] for i in batch)
        assert predicted == 1 or predicted >= cost_of(cost, len(batch), longest) * 0.999
        if len(batch) > 1:
            assert max_frames is None or len(batch) * longest <= max_frames
            assert max_utterances is None or len(batch) <= max_utterances
            assert max_cells is None or len(batch) * longest * most <= max_cells
            assert cost is None or predicted <= cost.budget * (1 + 1e-9)


@pytest.mark.parametrize("cost", [None, CostConfig()])
def test_the_plan_is_a_function_of_seed_and_epoch(cost):
    frames, phones = lengths(2000, 1)
    one, again = (make(frames, phones, 7, 3, cost=cost) for _ in range(2))
    assert batches(one) == batches(again)
    assert np.array_equal(one.costs, again.costs)
    for seed, epoch in ((7, 4), (8, 3)):
        one, other = (
            {frozenset(b) for b in batches(make(frames, phones, *key, cost=cost))}
            for key in ((7, 3), (seed, epoch))
        )
        assert len(one & other) < 0.5 * len(other)


@pytest.mark.parametrize("sigma", [0.4, 0.6])
def test_padding_is_small(sigma):
    frames, phones = lengths(20_000, 0, sigma)
    frames = np.clip(frames, 86, 1033)
    plan = make(frames, phones, max_frames=int(16 * frames.mean()), max_utterances=256)
    made = [np.asarray(b) - 1000 for b in batches(plan)]
    padded = 1 - sum(frames[b].sum() for b in made) / sum(len(b) * frames[b].max() for b in made)
    cells = sum(len(b) * frames[b].max() * phones[b].max() for b in made)
    wasted = 1 - sum((frames[b] * phones[b]).sum() for b in made) / cells
    assert padded <= 0.02
    assert wasted <= 0.08
    assert np.mean([len(b) for b in made]) >= 8


@pytest.mark.parametrize("sigma", [0.4, 0.6])
def test_micro_batches_cost_nearly_the_same(sigma):
    frames, phones = lengths(20_000, 0, sigma)
    frames = np.clip(frames, 86, 1033)
    cost = CostConfig()
    plan = make(frames, phones, cost=cost, max_frames=None, max_utterances=None)
    made = [np.asarray(b) - 1000 for b in batches(plan)]
    found = np.array([cost_of(cost, len(b), frames[b].max()) for b in made])
    assert found.max() <= cost.budget
    assert np.mean(found >= 0.9 * cost.budget) > 0.99
    padded = 1 - sum(frames[b].sum() for b in made) / sum(len(b) * frames[b].max() for b in made)
    assert padded <= 0.01


def lines_run(function: Callable, code: CodeType) -> int:
    """Return how many lines of one function Python runs in the course of a call."""
    count = 0

    def local(frame: FrameType, event: str, arg: object) -> Callable:
        nonlocal count
        count += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: local if frame.f_code is code else None)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def test_the_loop_runs_a_few_lines_per_micro_batch():
    """The rest of the planning is numpy's, so that ten million utterances take seconds."""
    for n in (2_000, 20_000, 200_000):
        frames, phones = lengths(n, 0)
        made = []
        plan = partial(make, frames, phones, cost=CostConfig(), max_cells=10**6)
        run = lines_run(lambda plan=plan, made=made: made.append(plan()), epoch_plan._cut.__code__)
        assert run < 12 * len(made[0].offsets)


def peak_bytes(function: Callable[[], EpochPlan]) -> tuple[EpochPlan, int]:
    """Return a plan, and the most memory that its making held at once."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [100_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_memory_per_utterance_does_not_grow_with_their_number(n):
    frames, phones = lengths(n, 0)
    plan, peak = peak_bytes(partial(make, frames, phones, max_frames=8000, max_utterances=64))
    assert np.array_equal(np.unique(plan.order), np.arange(n) + 1000)
    assert plan.order.nbytes + plan.offsets.nbytes + plan.begins.nbytes < 10 * n
    assert peak < 150 * n
