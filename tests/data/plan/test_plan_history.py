"""Settings of the plan change between two starts: each utterance is still used once per epoch."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan.epoch_plan import EpochPlan, Position
from data.plan.history import Change, Cut, History, begun, change_of, changed, plan_through
from data.plan.schedule import Schedule
from data.settings.plan import CostConfig, PlanConfig
from data.stream.orders import order_of

Step = list[tuple[int, ...]]  # rows of each micro-batch
CUT = Cut(0, 2, 0, True, PlanConfig(max_frames=3000, max_utterances=8))


def lengths_of(frames: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, frames and phones."""
    lengths = np.asarray(frames)
    return np.arange(len(frames)), lengths, 1 + lengths % 97


def plan(frames: list[int], history: History, epoch: int) -> EpochPlan:
    return plan_through(history, *lengths_of(frames), epoch)


def schedule_of(frames: list[int], history: History) -> Schedule:
    return Schedule(history, *lengths_of(frames))


def dealt(schedule: Schedule, position: Position, world_size: int) -> Step:
    """Return the micro-batches of one step, by slot, through the rows that W workers are dealt."""
    order = order_of(schedule, position, range(world_size), world_size)
    G = schedule.cut.micro_batches_per_step
    made = dict(zip(order.slots, (tuple(rows.tolist()) for rows in order.rows), strict=True))
    return [made[slot] for slot in range(G)]


def replayed(frames: list[int], history: History, steps: int) -> list[Step]:
    """Return what the history alone says of the first steps."""
    position = Position()
    made = []
    for _ in range(steps):
        current = plan(frames, history, position.epoch)
        G = int(np.diff(current.begins)[position.epoch_step])
        made.append([tuple(current.micro_batch(position.epoch_step, j).tolist()) for j in range(G)])
        position = schedule_of(frames, history).after(position)
    return made


cuts = st.builds(
    Cut,
    seed=st.integers(0, 3),
    micro_batches_per_step=st.integers(1, 6),
    segment_frames=st.just(0),
    add_blank=st.booleans(),
    plan=st.builds(
        PlanConfig,
        mode=st.sampled_from(["cost", "budget"]),
        cost=st.builds(CostConfig, budget=st.floats(100, 4000)),
        max_frames=st.integers(100, 6000),
        max_utterances=st.integers(1, 12),
        max_cells=st.none() | st.integers(1, 500_000),
    ),
)
# a start of the run, and its steps
starts = st.lists(st.tuples(cuts, st.integers(0, 9)), min_size=1, max_size=5)
corpora = st.lists(st.integers(1, 1200), min_size=1, max_size=60)


@pytest.mark.medium
@settings(deadline=None, max_examples=150)
@given(corpora, starts, st.data())
def test_every_utterance_once_per_epoch_through_all_changes(frames, starts, data):
    history = begun(starts[0][0])
    position = Position()
    trace = []
    for cut, steps in starts:
        history = tuple(change_of(c) for c in json.loads(json.dumps([asdict(c) for c in history])))
        history = changed(history, position, cut)
        schedule = schedule_of(frames, history)
        W = data.draw(st.integers(1, cut.micro_batches_per_step), "W")
        for _ in range(steps):
            trace.append(dealt(schedule, position, W))
            position = schedule.after(position)
    assert replayed(frames, history, len(trace)) == trace

    for epoch in range(position.epoch + 1):
        whole = plan(frames, history, epoch)
        used = whole.order[: len(whole.order) - len(whole.filled_rows())]
        assert sorted(used.tolist()) == list(range(len(frames)))
        assert whole.begins[-1] == len(whole.offsets) - 1

    last = history[-1].cut
    rest = plan(frames, history, position.epoch)
    # what is to come keeps the new budget
    for m in range(rest.begins[position.epoch_step], rest.begins[-1]):
        batch = rest.order[rest.offsets[m] : rest.offsets[m + 1]]
        longest = max(frames[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= last.plan.max_frames


def test_the_order_without_changes_is_what_it_was():
    """A history of one entry changes no run that was begun before there were any."""
    frames = [20 + i * 37 % 400 for i in range(50)]
    lengths = np.asarray(frames)
    for epoch in (0, 3):
        alone = CUT.epoch_plan(np.arange(50), lengths, 1 + lengths % 97, epoch)
        assert np.array_equal(plan(frames, (Change(0, 0, CUT),), epoch).order, alone.order)


def test_the_same_cut_leaves_the_history_alone_and_another_at_the_same_place_takes_its_place():
    lower, lowest = (replace(CUT, plan=replace(CUT.plan, max_frames=n)) for n in (2000, 1000))
    begun = (Change(0, 0, CUT),)
    assert changed(begun, Position(7, 1, 2), CUT) == begun
    once = changed(begun, Position(7, 1, 2), lower)
    assert once == (*begun, Change(1, 2, lower))
    assert changed(once, Position(7, 1, 2), lowest) == (*begun, Change(1, 2, lowest))
    assert changed(once, Position(8, 1, 3), CUT) == (*once, Change(1, 3, CUT))
    assert changed(begun, Position(), lower) == (Change(0, 0, lower),)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(1, 6), st.integers(1, 6), st.integers(0, 40), st.booleans())
def test_buckets_use_every_utterance_at_least_once(frames, before, after, cursor, to_budget):
    """They repeat utterances to fill their batches, and may have nothing else to come."""
    buckets = replace(
        CUT,
        plan=PlanConfig(mode="buckets", max_utterances=before, bucket_boundaries=(0, 300, 1200)),
    )
    other = CUT if to_budget else replace(buckets, plan=replace(buckets.plan, max_utterances=after))
    begun = (Change(0, 0, buckets),)
    step = cursor % plan(frames, begun, 0).steps
    whole = plan(frames, changed(begun, Position(step, 0, step), other), 0)
    assert set(whole.order.tolist()) | set(whole.left_out.tolist()) >= set(range(len(frames)))
    assert whole.steps > step


OLD_PLAN = {
    "mode": "budget",
    "max_frames": 8000,
    "max_utterances": 64,
    "max_cells": None,
    "bucket_boundaries": [32, 1000],
    "pad_to": {"frames": 16, "tokens": 64},
}


@pytest.mark.parametrize("open_", ["max_frames", "max_utterances", None])
def test_a_run_of_older_code_has_the_plan_of_its_settings_today(open_):
    """Whether its defaults of then are given today or are still left open."""
    cut = asdict(CUT) | {"plan": OLD_PLAN}
    (recorded,) = (change_of({"epoch": 0, "epoch_step": 0, "cut": cut}),)
    given = {"bucket_boundaries": (32, 1000), "max_frames": 8000, "max_utterances": 64}
    given.pop(open_, None)
    today = PlanConfig(**given).settled(recorded.cut.plan.mode)
    assert recorded.cut == replace(CUT, plan=today)
    assert changed((recorded,), Position(7, 0, 7), replace(CUT, plan=today)) == (recorded,)


def test_costs_that_nothing_is_cut_by_change_no_plan():
    other = replace(CUT.plan, mode="budget", cost=CostConfig(budget=1.0))
    assert replace(CUT, plan=other) == replace(CUT, plan=replace(other, cost=CostConfig()))


def test_a_change_in_a_later_epoch_leaves_those_before_alone():
    frames = [20 + i * 37 % 400 for i in range(80)]
    lower = replace(CUT, plan=replace(CUT.plan, max_frames=900), seed=5)
    history = (Change(0, 0, CUT), Change(2, 3, lower))
    for epoch in (0, 1):
        assert np.array_equal(
            plan(frames, history, epoch).order, plan(frames, history[:1], epoch).order
        )
    assert np.array_equal(
        plan(frames, history, 3).order, plan(frames, (Change(0, 0, lower),), 3).order
    )
    changed_epoch = plan(frames, history, 2)
    old, new = (plan(frames, h, 2).parted(3)[0] for h in (history[:1], history))
    assert np.array_equal(old, new)
    assert changed_epoch.steps > plan(frames, history[:1], 2).steps
    with pytest.raises(AssertionError):
        changed_epoch.micro_batch(0, 2)
