"""Orders of a stream: who gets what, when it may be loaded, and where datasets meet."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any

import pytest

from data.plan.epoch_plan import Position
from data.stream.orders import NO_SLOT, Group, Order, Orders, StepTime, order_of
from tests.trainable.worker.fakes import schedule

AHEAD = 8


def orders(first: int, end: int) -> list[Order]:
    return [Order(step, [0], []) for step in range(first, end)]


def run(steps: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(steps, 10))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 9, 64, 65, 500, 512])
@pytest.mark.parametrize("loaders", [1, 4, 64, 1000])
def test_groups_share_the_ranks_and_the_loaders(world_size, loaders):
    found = [Group.of(rank, world_size, loaders) for rank in range(world_size)]
    assert all(rank in group.ranks for rank, group in enumerate(found))
    groups = sorted({group.number: group for group in found}.values(), key=lambda g: g.number)
    assert [rank for group in groups for rank in group.ranks] == list(range(world_size))
    assert all(group.loaders >= 1 for group in groups)
    assert sum(group.loaders for group in groups) == loaders or loaders > world_size
    sizes = [len(group.ranks) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 8 or len(groups) == loaders


@pytest.mark.parametrize(
    ("loaders", "turns", "made"), [(1, 1, 8), (4, 1, 8), (16, 1, 2), (16, 2, 4)]
)
def test_calls_share_the_steps_that_may_be_loaded(loaders, turns, made):
    group = Group.of(0, 8, loaders)
    assert group.micro_batches_per_call(turns, ahead=8) == made
    assert Group.of(0, 8, 1000).micro_batches_per_call(turns, ahead=8) == 1


@pytest.mark.parametrize(("micro_batches", "world_size"), [(4, 1), (4, 3), (16, 16), (17, 10)])
def test_a_step_is_dealt_to_its_ranks(micro_batches, world_size):
    plan = schedule(200, 2, micro_batches)
    position = plan.after(Position())
    dealt: dict[int, list[int]] = {}
    for group in {Group.of(rank, world_size, 4) for rank in range(world_size)}:
        order = order_of(plan, position, group.ranks, world_size)
        assert [slot for part in order.parts(3) for slot in part.slots] == order.slots
        for place, rank in enumerate(group.ranks):
            own = range(place, len(order.slots), len(group.ranks))
            assert len(own) == -(-micro_batches // world_size)
            slots = [order.slots[i] for i in own if order.slots[i] != NO_SLOT]
            assert slots == list(range(rank, micro_batches, world_size))
            dealt |= {order.slots[i]: order.rows[i].tolist() for i in own}
    dealt.pop(NO_SLOT, None)
    wanted = plan.plan(position.epoch)
    assert dealt == {
        slot: wanted.micro_batch(position.epoch_step, slot).tolist()
        for slot in range(micro_batches)
    }


def test_a_dataset_begins_ahead_of_the_training_and_goes_on_from_there():
    async def steps() -> None:
        queue = Orders(AHEAD, 0, 13)
        await queue.place(orders(0, 3), 0)
        # an actor of Ray may run calls in another order
        await queue.place(orders(9, 12), 3)
        await queue.place(orders(3, 9), 1)
        await queue.begin(0)
        first = await queue.take(0)
        # of steps 3 to 11; the training reached three steps in no time
        assert first.step == 3 + AHEAD // 2
        taken = [(await queue.take(0)).step for _ in range(4)]
        assert taken == list(range(first.step + 1, 12))
        waiting = asyncio.ensure_future(queue.take(0))
        await asyncio.sleep(0)
        assert not waiting.done()  # step 12 may not be loaded yet
        await queue.place(orders(12, 13), 4)
        assert (await waiting).step == 12
        assert await queue.take(0) is None

    run(steps())


def test_what_the_ranks_have_loaded_themselves_is_not_loaded_again():
    async def steps() -> None:
        queue = Orders(AHEAD, 0, 13)
        await queue.place(orders(0, 9), 0)
        await queue.begin(0)
        await queue.place(orders(9, 15), 6)
        assert (await queue.take(0)).step == 6

    run(steps())


def test_a_dataset_goes_on_where_the_one_before_it_ends():
    async def steps() -> None:
        queue = Orders(AHEAD, 0, 13)
        await queue.place(orders(0, 9), 0)
        await queue.begin(0)
        step = (await queue.take(0)).step
        following = asyncio.ensure_future(queue.begin(1))
        await asyncio.sleep(0)
        assert not following.done()
        await queue.end(0)
        assert await queue.take(0) is None
        await following
        assert (await queue.take(1)).step == step + 1
        # Ray runs a task a second time if its process dies; its first orders are gone
        with pytest.raises(RuntimeError, match="twice"):
            await queue.begin(1)

    run(steps())


def test_a_rank_gets_a_split_once_and_of_a_later_dataset_if_its_own_failed():
    async def steps() -> None:
        queue = Orders(AHEAD, 0, 13)
        waiting = asyncio.ensure_future(queue.split(1, 1))
        await queue.opened(0, ["a", "b"])
        assert await queue.split(0, 0) == (0, "a")
        assert not waiting.done()
        await queue.opened(2, ["c", "d"])
        assert await waiting == (2, "d")
        again = asyncio.ensure_future(queue.split(2, 1))
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()

    run(steps())


def test_steps_are_counted_in_seconds():
    now = 0.0
    time = StepTime(lambda: now)
    assert time.steps_in(30) == 1
    for step in range(40):
        time.note(step)
        now += 0.25 if step > 20 else 5
    assert time.steps_in(30) == 120
    assert all(a < b for a, b in pairwise([time.steps_in(s) for s in (1, 2, 30)]))
