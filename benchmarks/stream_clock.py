"""Groups of the stream on a clock of their own: part of benchmarks.stream.

So the figure does not depend on how many groups a machine can run, nor on what else it runs. Time
goes on by what the parts of the stream were measured to take in CPU seconds, each of them on a core
of its own, and by what Ray waits for. The orders, how they are dealt to calls, and when the next
dataset is opened are training's own code (data/stream/orders.py). This is modelled:

- The executor of Ray Data waits up to LOOP_S for its tasks, which it does each time, as the source
  is never through; takes what they have made; and starts further calls, in order.
- A loader makes the micro-batches of its calls one after the other; it has at most
  `CALLS_PER_LOADER` calls.
- A rank has its micro-batch once all before it are there, one message later, and unpacks it while
  the step before is trained on.
- A dataset is there some seconds after it is opened; meanwhile the ranks load their own.
"""

import asyncio
import math
import selectors
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.stream.datasets import AT_HAND_S, OPEN_AHEAD_S
from data.stream.orders import CALLS_PER_LOADER, NO_ROWS, Group, Order, Orders, StepTime

LOOP_S = 0.1  # ray.data._internal.execution: WAIT_FOR_TASK_COMPLETION_TIMEOUT_S
MESSAGE_S = 0.01  # from process to process, assumed; on one node Ray takes about 1 ms


@dataclass(frozen=True)
class Costs:
    """What the stream was measured to take, in CPU seconds.

    Attributes:
        coordination: per micro-batch, of what a group has once; one value per time it was measured.
        loader: per micro-batch, likewise.
        rank: per micro-batch, likewise.
        opening: a dataset's start until it delivers.
    """

    coordination: Sequence[float]
    loader: Sequence[float]
    rank: Sequence[float]
    opening: float


@dataclass(frozen=True)
class Run:
    """A run whose steps are simulated.

    Attributes:
        groups: number of groups.
        ranks: number of ranks of each, G = W.
        loaders: number of loaders of each.
        ahead: number of steps that are ordered ahead of the training.
        steps: number of steps.
        steps_per_dataset: number of them after which a dataset ends.
        step_s: seconds of a step.
        buffer: micro-batches of a call that may wait for the executor; None: all of them.
    """

    groups: int
    ranks: int
    loaders: int
    ahead: int
    steps: int
    steps_per_dataset: int
    step_s: float
    buffer: int | None = None


class Skip(selectors.SelectSelector):
    """Goes to the next time at which something happens, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time go on."""
        assert timeout is not None, "everything waits"
        self.now += max(timeout, 0.0)
        return []


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose seconds take no time."""

    def __init__(self) -> None:
        self.skip = Skip()
        super().__init__(self.skip)

    def time(self) -> float:
        """Return the seconds since it began."""
        return self.skip.now


def waits_of(run: Run, costs: Costs) -> np.ndarray:
    """Return the seconds that training waits before each step, for the last rank, [steps]."""
    clock = Clock()
    try:
        return clock.run_until_complete(_simulated(run, costs, clock))
    finally:
        clock.close()


async def _simulated(run: Run, costs: Costs, clock: Clock) -> np.ndarray:
    training = Training(run, clock)
    groups = [SimulatedGroup(run, costs, training, clock, number) for number in range(run.groups)]
    async with asyncio.TaskGroup() as tasks:
        for group in groups:
            group.start(tasks)
        await training.run()
        for group in groups:
            group.end()
    return training.waits


class Training:
    """Steps that begin when all groups are ready, and take the same time each."""

    def __init__(self, run: Run, clock: Clock) -> None:
        self.shape = run
        self.clock = clock
        self.waits = np.zeros(run.steps)
        self.unready = [run.groups] * run.steps
        self.ready = [asyncio.Event() for _ in range(run.steps)]
        self.begun = [asyncio.Event() for _ in range(run.steps)]

    def note_ready(self, step: int) -> None:
        """Note that a group has its micro-batches of a step."""
        self.unready[step] -= 1
        if not self.unready[step]:
            self.ready[step].set()

    async def run(self) -> None:
        """Take all steps."""
        for step in range(self.shape.steps):
            asked = self.clock.time()
            await self.ready[step].wait()
            self.waits[step] = self.clock.time() - asked
            self.begun[step].set()
            await asyncio.sleep(self.shape.step_s)


class SimulatedGroup:
    """A group of ranks with its orders, and its datasets one after the other."""

    def __init__(
        self, run: Run, costs: Costs, training: Training, clock: Clock, number: int
    ) -> None:
        self.run = run
        self.costs = costs
        self.training = training
        self.clock = clock
        self.rng = np.random.default_rng(number)
        self.orders = Orders(run.ahead, 0, run.steps)
        self.orders.step_time = StepTime(clock.time)
        self.step_time = StepTime(clock.time)
        group = Group(0, range(run.ranks), run.loaders)
        self.per_call = group.micro_batches_per_call(1, run.ahead)
        self.ordered = 0  # step behind the last one that was ordered
        self.datasets: list[Dataset] = []
        self.current = 0  # number of the dataset that the ranks read
        self.begin: int | None = None  # its first step, once it has been reached
        self.arrived: dict[int, int] = {}  # step -> micro-batches that have come
        self.newest = -1  # step of the newest of them
        self.news = asyncio.Condition()
        self.running: list[asyncio.Task] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin."""
        self.tasks = tasks
        self.open_next()
        tasks.create_task(self.feed())

    def end(self) -> None:
        """End what still waits for orders."""
        for task in self.running:
            task.cancel()

    def draw(self, costs: Sequence[float]) -> float:
        """Return what a micro-batch takes, as measured at some time."""
        return costs[int(self.rng.integers(len(costs)))]

    async def feed(self) -> None:
        """Make every step ready while the one before it is trained on, as the ranks do."""
        for step in range(self.run.steps):
            await self.order(step)
            self.step_time.note(step)
            if self.datasets[self.current].ends_before(step):
                self.current, self.begin = self.current + 1, None
                if self.current == len(self.datasets):
                    self.open_next()
            came = await self.delivered(step, AT_HAND_S if self.begin is None else None)
            if came and self.begin is None:
                self.begin = step
            unpacked = MESSAGE_S + max(self.draw(self.costs.rank) for _ in range(self.run.ranks))
            await asyncio.sleep(unpacked if came else self.draw(self.costs.loader))
            self.training.note_ready(step)
            if self.ends_soon(step):
                self.open_next()
            await self.training.begun[step].wait()

    async def order(self, step: int) -> None:
        """Order what may be loaded when the training reaches a step."""
        end = min(step + self.run.ahead + 1, self.run.steps)
        ranks = self.run.ranks
        made = [Order(i, [*range(ranks)], [NO_ROWS] * ranks) for i in range(self.ordered, end)]
        self.ordered = end
        await self.orders.place(made, step)

    async def delivered(self, step: int, patience: float | None) -> bool:
        """Wait for a step of Ray Data's; tell whether it came, and not one behind it."""

        def here() -> bool:
            return self.arrived.get(step) == self.run.ranks

        async with self.news:
            try:
                async with asyncio.timeout(patience):
                    await self.news.wait_for(lambda: here() or self.newest > step)
            except TimeoutError:
                return False
            return here()

    async def deliver(self, step: int, count: int) -> None:
        """Give the ranks micro-batches of a step."""
        async with self.news:
            self.arrived[step] = self.arrived.get(step, 0) + count
            self.newest = step
            self.news.notify_all()

    def ends_soon(self, step: int) -> bool:
        """Tell whether the next dataset is to be opened."""
        if self.begin is None or self.current + 1 < len(self.datasets):
            return False
        end = self.begin + self.run.steps_per_dataset
        return step + self.step_time.steps_in(OPEN_AHEAD_S) >= end < self.run.steps

    def open_next(self) -> None:
        """Open the next dataset."""
        self.datasets.append(Dataset(self, len(self.datasets)))
        self.running.append(self.tasks.create_task(self.datasets[-1].run()))


class Call:
    """A call of a loader.

    Attributes:
        step: number of the step.
        left: micro-batches that are still to be made.
        kept: those that the executor has taken, and no rank has.
        since: time since when its loader may make the next.
    """

    def __init__(self, order: Order) -> None:
        self.step = order.step
        self.left = len(order.slots)
        self.kept = 0
        self.since = 0.0


class Loader:
    """Makes the micro-batches of its calls, the oldest first."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.free_at = 0.0

    def take(self, now: float, cost: float, buffer: float) -> int:
        """Work up to now; return how many micro-batches the executor takes.

        Args:
            now: the time.
            cost: seconds of a micro-batch.
            buffer: after so many of a call the loader waits until the executor takes them.
        """
        taken = 0
        for call in self.calls:
            made, at = 0, max(self.free_at, call.since)
            while call.left and made < buffer and at + cost <= now:
                made, at, call.left = made + 1, at + cost, call.left - 1
            if made:
                self.free_at = at
            if made == buffer:
                call.since = now
            call.kept += made
            taken += made
        self.calls = [call for call in self.calls if call.left]
        return taken


class Dataset:
    """A dataset: its source, its loaders, and the loop that executes it."""

    def __init__(self, group: SimulatedGroup, number: int) -> None:
        self.group = group
        self.number = number
        self.rows = deque[Call]()  # of the source, in order
        self.begun = deque[Call]()  # calls that no rank has all of, in order
        self.loaders = [Loader() for _ in range(group.run.loaders)]
        self.end: int | None = None  # step behind its last one, once that is known

    def ends_before(self, step: int) -> bool:
        """Tell whether all its steps lie before one."""
        return self.end is not None and self.end <= step

    async def run(self) -> None:
        """Start, and deliver what is ordered."""
        await asyncio.sleep(self.group.costs.opening)
        self.group.running.append(self.group.tasks.create_task(self.read()))
        while self.end is None or self.rows or self.begun:
            await asyncio.sleep(LOOP_S)
            await self.look()

    async def read(self) -> None:
        """Be the source: make a row per call, as steps are ordered."""
        orders, step = self.group.orders, 0
        await orders.begin(self.number)
        for _ in range(self.group.run.steps_per_dataset):
            order = await orders.take(self.number)
            if order is None:
                break
            step = order.step
            self.rows.extend(map(Call, order.parts(self.group.per_call)))
        await orders.end(self.number)
        self.end = step + 1

    async def look(self) -> None:
        """Take what the loaders have made, start further calls, and let the ranks have theirs."""
        group, now = self.group, self.group.clock.time()
        buffer = group.run.buffer or math.inf
        cost = group.draw(group.costs.loader)
        taken = sum(loader.take(now, cost, buffer) for loader in self.loaders)
        await asyncio.sleep(taken * group.draw(group.costs.coordination))
        while self.rows and (loader := self._free_loader()):
            call = self.rows.popleft()
            call.since = group.clock.time() + MESSAGE_S
            loader.calls.append(call)
            self.begun.append(call)
        while self.begun:
            first = self.begun[0]
            if first.kept:
                await group.deliver(first.step, first.kept)
                first.kept = 0
            if first.left:
                break
            self.begun.popleft()

    def _free_loader(self) -> Loader | None:
        """Return the loader with the fewest calls; None if all have as many as they may."""
        least = min(self.loaders, key=lambda loader: len(loader.calls))
        return least if len(least.calls) < CALLS_PER_LOADER else None
