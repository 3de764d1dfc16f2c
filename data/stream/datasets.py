"""Ray's side of the stream: datasets whose rows are micro-batches, and the actors that load them.

One row of a dataset is one micro-batch and one block, the order is preserved, and
`streaming_split(W, equal=True)` deals rows round robin: rank r gets rows r, r + W, ... See
`data.plan.schedule.dealt_rows`.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.memory import keep_freed_memory
from data.plan.epoch_plan import Position
from data.plan.schedule import dealt_rows
from data.stream.collectives import CollectiveBroadcast
from data.stream.loading import row_loader
from data.stream.packing import PLACE, pack
from data.stream.spec import StreamSpec, schedule_of


class DatasetError(Exception):
    """Ray Data failed, as on a node that is about to leave the cluster."""


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return where to place an actor that only this process uses: on its node; both end together.

    Ray puts actors that take no CPU on any node: one that leaves takes them with it, and an idle
    one stays for them.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@ray.remote(num_cpus=0)
class Pace:
    """Tells the processes of a stream how far the loaders may go, and where the datasets are.

    It holds the loaders back to a number of global steps ahead of the training, which bounds the
    memory.

    Ray Data's own back-pressure bounds it too, but its scheduling loop then spins on results that
    it may not take yet: half a core on a machine that has two.
    """

    def __init__(self, step: int, ahead: int):
        """Begin.

        Args:
            step: step that the training has reached.
            ahead: number of steps that loaders may be ahead of it.
        """
        self.step = step
        self.ahead = ahead
        self.moved = asyncio.Condition()
        self.splits: dict[int, dict[int, ray.data.DataIterator]] = {}  # first step -> rank -> split

    async def reached(self, step: int) -> None:
        """Note that the training has reached `step`."""
        async with self.moved:
            self.step = step
            self.moved.notify_all()

    async def within_reach(self, step: int) -> int:
        """Wait until `step` may be loaded; return the last step that may be loaded by then."""
        async with self.moved:
            await self.moved.wait_for(lambda: step <= self.step + self.ahead)
            return self.step + self.ahead

    async def opened(self, step: int, splits: list[ray.data.DataIterator]) -> None:
        """Note that the dataset whose first step is `step` is open, with one split per rank."""
        async with self.moved:
            self.splits[step] = dict(enumerate(splits))
            self.moved.notify_all()

    async def split(self, step: int, rank: int) -> ray.data.DataIterator:
        """Wait for the dataset whose first step is `step`; return a rank's split of it, once.

        Nothing is kept of it: a dataset's loaders know this actor, and an actor that knew them
        would never be garbage collected.
        """
        async with self.moved:
            await self.moved.wait_for(lambda: step in self.splits)
            split = self.splits[step].pop(rank)
            if not self.splits[step]:
                del self.splits[step]
            return split


class Loader:
    """Reads, decodes and collates micro-batches; the map of the dataset."""

    def __init__(self, spec: StreamSpec, pace: Any):
        self.pace = pace
        self.rows = row_loader(spec)
        self.allowed = -1  # the last step that may be loaded, as far as it is known here
        keep_freed_memory()

    def __call__(self, row: Mapping[str, np.ndarray]) -> pa.Table:
        """Load a micro-batch.

        Args:
            row: row of `dealt_rows`, every value of it in an array of one.

        Returns:
            A row of data.stream.packing.SCHEMA.
        """
        place = {name: row[name][0].item() for name in PLACE}
        if place["step"] > self.allowed:
            self.allowed = ray.get(self.pace.within_reach.remote(place["step"]))
        return pack(place, self.rows.load(row["rows"][0]))


class Datasets:
    """The datasets of a stream, of which rank 0 makes one after the other for all ranks."""

    def __init__(
        self,
        spec: StreamSpec,
        begin: int,
        rank: int,
        world_size: int,
        broadcast: CollectiveBroadcast,
        loader_resources: Mapping[str, float] | None = None,
    ):
        """Start the actor that all ranks share. A collective call.

        Args:
            spec: names the data and its order.
            begin: first step of the first dataset.
            rank: rank of this worker.
            world_size: number of workers, W.
            broadcast: hands rank 0's object to all ranks.
            loader_resources: further resources of the cluster that each loader takes.
        """
        self.spec = spec
        self.rank = rank
        self.world_size = world_size
        self.loader_resources = dict(loader_resources or {})
        self.executions: list[ray.actor.ActorHandle] = []  # rank 0: of the newest two datasets
        self.stopped = False

        pace = None
        if rank == 0:
            here = Pace.options(scheduling_strategy=on_this_node())  # type: ignore[attr-defined]
            pace = here.remote(begin, spec.data.prefetch_steps)
        self.pace: Any = broadcast(pace)  # the handle of a Pace

    def open(self, first: Position, steps: int) -> Iterator[pa.Table]:
        """Open a dataset in the background, and return this rank's rows of it.

        All ranks must open the same datasets. The rows raise DatasetError if Ray Data fails.

        Args:
            first: position of its first step.
            steps: number of its global steps.
        """

        def split() -> Iterator[pa.Table]:
            if self.rank == 0:
                ray.get(self.pace.opened.remote(first.step, self._splits(first, steps)))
            own = ray.get(self.pace.split.remote(first.step, self.rank))
            return iter(own.iter_batches(batch_size=1, prefetch_batches=2, batch_format="pyarrow"))

        return BackgroundRows(split)

    def reached(self, step: int) -> None:
        """Let the loaders follow the training to `step`."""
        if self.rank == 0:
            self.pace.reached.remote(step)

    def stop(self) -> None:
        """End the loaders of all ranks, so that another stream has their CPUs."""
        self.stopped = True
        if self.rank == 0:
            for actor in (*self.executions, self.pace):
                ray.kill(actor)

    def _splits(self, first: Position, steps: int) -> list[ray.data.DataIterator]:
        """Make a dataset, and split it for the ranks."""
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = dealt_rows(schedule_of(self.spec), first, steps, self.world_size)
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Loader,
            batch_size=1,
            batch_format="numpy",
            fn_constructor_args=(self.spec, self.pace),
            num_cpus=1,
            resources=self.loader_resources,
            # Actors, as idle task workers are ended within a second, and starting one costs seconds
            # of imports. Of two calls of an actor one computes, while the other's result is stored
            # and its successor fetched.
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=self.spec.data.loader_count, max_concurrent_calls_per_actor=2
            ),
        )
        dataset.context.execution_options.preserve_order = True
        # reading /proc once per call costs more than it tells
        dataset.context.memory_usage_poll_interval_s = None
        splits = dataset.streaming_split(self.world_size, equal=True)

        # the actor that executes the dataset and owns its loaders; Ray has no public way to end it
        # early
        split: Any = splits[0]
        self.executions = [*self.executions[-1:], split._coord_actor]
        if self.stopped:
            ray.kill(self.executions[-1])
        return splits


class BackgroundRows(Iterator[pa.Table]):
    """Rows of a dataset that a thread opens.

    The thread asks for the first row too: from then on Ray Data executes the dataset.
    """

    def __init__(self, split: Callable[[], Iterator[pa.Table]]):
        """Open the dataset.

        Args:
            split: opens it; returns its rows.
        """
        self.rows: Iterator[pa.Table] = iter(())
        self.first = Future[pa.Table]()
        self.begun = False
        threading.Thread(target=self._begin, args=(split,), daemon=True).start()

    def _begin(self, split: Callable[[], Iterator[pa.Table]]) -> None:
        try:
            self.rows = split()
            self.first.set_result(next(self.rows))
        except Exception as error:  # noqa: BLE001  # raised again where the row is taken
            self.first.set_exception(error)

    def __next__(self) -> pa.Table:
        """Return the next row.

        Raises:
            DatasetError: Ray Data failed.
        """
        try:
            if self.begun:
                return next(self.rows)
            self.begun = True
            return self.first.result()
        except RayError as error:
            raise DatasetError(str(error).strip().splitlines()[-1]) from error
