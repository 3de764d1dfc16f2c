"""What the loaders of a stream are to load, and when: a queue that one rank fills.

It knows no Ray, which runs it as an actor (data/stream/datasets.py). A step is ordered when it may
be loaded, a number of steps ahead of the training: this bounds the memory, in units that a user can
calculate with.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.plan.epoch_plan import Position
from data.plan.schedule import Schedule

NO_SLOT = -1
NO_ROWS = np.zeros(0, np.int64)
BEGIN_AHEAD_S = 1.0  # a dataset's first rows take that long to reach the ranks
RANKS_PER_DATASET = 8  # a dataset's coordinator executes some 170 rows/s, whatever is in them
CALLS_PER_LOADER = 2  # of them one computes, while the other's result is stored
STEPS_TIMED = 8


@dataclass(frozen=True)
class Group:
    """Ranks that share a dataset of Ray Data, and its loaders.

    Attributes:
        number: number of the group.
        ranks: its ranks, of which the first one fills the queue.
        loaders: largest number of its loaders.
    """

    number: int
    ranks: range
    loaders: int

    @classmethod
    def of(cls, rank: int, world_size: int, loaders: int) -> "Group":
        """Return the group of a rank.

        Groups are alike: as many as keep a coordinator's work small, and each has a loader.

        Args:
            rank: the rank.
            world_size: number of ranks, W.
            loaders: largest number of loaders of all groups.
        """
        groups = min(-(-world_size // RANKS_PER_DATASET), loaders)
        number = rank * groups // world_size
        first, end = (-(-border * world_size // groups) for border in (number, number + 1))
        return cls(number, range(first, end), loaders // groups + (number < loaders % groups))

    def micro_batches_per_call(self, turns: int, ahead: int) -> int:
        """Return how many a loader makes at a time, at most a step's.

        There are enough calls for every loader within the steps that may be loaded.

        Args:
            turns: micro-batches of a rank per step.
            ahead: number of steps that are ordered ahead of the training.
        """
        per_step = len(self.ranks) * turns
        return min(max(per_step * ahead // (CALLS_PER_LOADER * self.loaders), 1), per_step)


@dataclass(frozen=True)
class Order:
    """Micro-batches of a step, as they are dealt to the ranks of a group in turn.

    Attributes:
        step: number of the step.
        slots: number j of each micro-batch within the G; NO_SLOT where a rank has no more.
        rows: rows of the manifest of each, int64 [b]; none where there is no micro-batch.
    """

    step: int
    slots: list[int]
    rows: list[np.ndarray]

    def parts(self, size: int) -> "list[Order]":
        """Return it in parts of at most so many micro-batches, for as many calls of loaders."""
        return [
            Order(self.step, self.slots[i : i + size], self.rows[i : i + size])
            for i in range(0, len(self.slots), size)
        ]


def order_of(
    schedule: Schedule, position: Position, ranks: Sequence[int], world_size: int
) -> Order:
    """Return the order of a step, ceil(G / W) micro-batches for each rank of a group.

    Args:
        schedule: order of the run.
        position: position of the step.
        ranks: ranks of the group.
        world_size: W, at most G.
    """
    plan = schedule.plan(position.epoch)
    shares = schedule.shares(position, world_size)[ranks[0] : ranks[-1] + 1]
    rounds = range(-(-schedule.cut.micro_batches_per_step // world_size))
    slots = [own[turn] if turn < len(own) else NO_SLOT for turn in rounds for own in shares]
    rows = [
        NO_ROWS if slot == NO_SLOT else plan.micro_batch(position.epoch_step, slot)
        for slot in slots
    ]
    return Order(position.step, slots, rows)


class StepTime:
    """How long a step takes, as measured over the last few."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.reached = deque[tuple[int, float]](maxlen=STEPS_TIMED + 1)

    def note(self, step: int) -> None:
        """Note that a step has been reached, once per step."""
        self.reached.append((step, self.clock()))

    def steps_in(self, seconds: float) -> int:
        """Return how many steps are taken in some seconds, at least 1; 1 as long as none was."""
        if len(self.reached) < 2:
            return 1
        (first, begin), (last, end) = self.reached[0], self.reached[-1]
        return max(1, math.ceil(seconds * (last - first) / max(end - begin, 1e-6)))


class Orders:
    """Orders of a group, and where its datasets are.

    Datasets are numbered. One takes orders at a time, and the next goes on where it ends.
    """

    def __init__(self, ahead: int, first: int, end: int):
        """Begin without orders.

        Args:
            ahead: number of steps that are ordered ahead of the training.
            first: first step that is ordered.
            end: step behind the last one.
        """
        self.ahead = ahead
        self.end_step = end
        self.early: dict[int, Order] = {}  # orders that came before one of an earlier step
        self.queue = deque[Order]()
        self.next = first  # behind the steps of the queue
        self.reached = first - 1
        self.step_time = StepTime()
        self.begun = -1  # newest dataset that has begun to take orders
        self.ended = -1  # newest dataset that takes no more
        self.changed = asyncio.Condition()
        # number of a dataset -> rank within the group -> its split
        self.splits: dict[int, dict[int, Any]] = {}

    async def place(self, orders: list[Order], reached: int) -> None:
        """Order further steps. Calls may come in another order than they were made in.

        Args:
            orders: steps that may be loaded from now on.
            reached: step that the training has reached.
        """
        async with self.changed:
            if reached > self.reached:
                self.reached = reached
                self.step_time.note(reached)
            self.early |= {order.step: order for order in orders}
            while self.next in self.early:
                self.queue.append(self.early.pop(self.next))
                self.next += 1
            self.changed.notify_all()

    async def begin(self, dataset: int) -> None:
        """Wait until a dataset may take orders: the one before it has ended.

        Raises:
            RuntimeError: it has begun before: what it had taken is lost.
        """
        async with self.changed:
            if self.begun >= dataset:
                raise RuntimeError("the source of the stream was started twice")
            self.begun = dataset
            await self.changed.wait_for(lambda: self.ended >= dataset - 1)
            # the ranks load the steps before it themselves; half of the orders are left to it
            behind = min(self.step_time.steps_in(BEGIN_AHEAD_S), self.ahead // 2)
            self._drop_before(self.reached + behind)

    async def take(self, dataset: int) -> Order | None:
        """Wait for the next order; None if the dataset is to end."""
        async with self.changed:
            while True:
                self._drop_before(self.reached)  # no rank wants them any more
                if self.ended >= dataset:
                    return None
                if self.queue:
                    return self.queue.popleft()
                if self.next >= self.end_step:
                    return None
                await self.changed.wait()

    async def end(self, dataset: int) -> None:
        """Note that a dataset takes no more orders."""
        async with self.changed:
            self.ended = max(self.ended, dataset)
            self.changed.notify_all()

    async def opened(self, dataset: int, splits: list[Any]) -> None:
        """Note that a dataset is open, with one split per rank of the group."""
        async with self.changed:
            self.splits = {dataset: dict(enumerate(splits))}
            self.changed.notify_all()

    async def split(self, dataset: int, rank: int) -> tuple[int, Any]:
        """Wait for a dataset, or one behind it; return its number and a rank's split of it, once.

        Args:
            dataset: number of the dataset.
            rank: number of the rank within the group.
        """
        async with self.changed:
            await self.changed.wait_for(
                lambda: any(n >= dataset and rank in own for n, own in self.splits.items())
            )
            ((number, splits),) = self.splits.items()
            return number, splits.pop(rank)

    def _drop_before(self, step: int) -> None:
        while self.queue and self.queue[0].step < step:
            self.queue.popleft()
