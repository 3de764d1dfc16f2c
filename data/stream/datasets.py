"""Ray's side of the stream: what executes the orders of a group of ranks.

A source turns the orders of data/stream/orders.py into rows as they come, so that loaders live on
while a run goes over steps and epochs. A row of the source is one call of a loader, which returns a
block of one row per micro-batch. The order is preserved, and `streaming_split(n, equal=True)` deals
the blocks to the n ranks in turn.
"""

import contextlib
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.block import Block
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.memory import keep_freed_memory
from data.plan.epoch_plan import Position
from data.ray_source import read_here
from data.stream.collectives import CollectiveBroadcast
from data.stream.loading import MakeRows, row_loader
from data.stream.orders import CALLS_PER_LOADER, Group, Orders, StepTime, order_of
from data.stream.packing import pack, step_of
from data.stream.spec import StreamSpec, schedule_of

log = logging.getLogger("bert_vits2_ray")

# the executor remembers some kB of every block: a dataset ends before that is much
MICRO_BATCHES_PER_DATASET = 32_768
OPEN_AHEAD_S = 30.0  # before a dataset ends, the next is opened: Ray Data may take as long
RETRY_S = 30.0  # from a dataset that failed to the next
NEVER_S = 10**6
CLOSED_WITHIN_S = 0.5
END_WITHIN_S = 10.0
AT_HAND_S = 0.02


class DatasetError(Exception):
    """Ray Data failed, as on a node that is about to leave the cluster."""


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return where to place an actor that only this process uses: on its node; both end together.

    Ray puts actors that take no CPU on any node: one that leaves takes them with it, and an idle
    one stays for them.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def start_orders(name: str, ahead: int, first: int, end: int) -> Any:
    """Return the handle of the Orders of a name, which are started if they are not there.

    Args:
        name: name of the actor.
        ahead: number of steps that are ordered ahead of the training.
        first: first step that is ordered.
        end: step behind the last one.
    """
    here = ray.remote(Orders).options(
        num_cpus=0, name=name, get_if_exists=True, scheduling_strategy=on_this_node()
    )
    return here.remote(ahead, first, end)


def ordered(orders: Any, dataset: int, steps: int, part: int) -> Iterator[Block]:
    """Yield rows as they are ordered, one per block: `step`, `slots`, and `rows` of the manifest.

    Args:
        orders: handle of an Orders.
        dataset: number of the dataset.
        steps: number of steps after which it ends.
        part: largest number of micro-batches of a row.
    """
    ray.get(orders.begin.remote(dataset))
    for _ in range(steps):
        order = ray.get(orders.take.remote(dataset))
        if order is None:
            break
        for each in order.parts(part):
            slots = pa.array([each.slots], pa.list_(pa.int64()))
            rows = pa.array([each.rows], pa.list_(pa.list_(pa.int64())))
            yield pa.table({"step": [each.step], "slots": slots, "rows": rows})
    ray.get(orders.end.remote(dataset))


class Loader:
    """Reads, decodes and collates micro-batches; the map of the dataset."""

    def __init__(self, spec: StreamSpec, make_rows: MakeRows):
        self.rows = make_rows(spec)
        self.lock = threading.Lock()  # several calls run at a time, and the rows know one
        keep_freed_memory()

    def __call__(self, call: pa.Table) -> Iterator[pa.Table]:
        """Load micro-batches; yield a row of `data.stream.packing.schema` for each.

        Args:
            call: row of `ordered`.
        """
        (row,) = call.to_pylist()
        for slot, members in zip(row["slots"], row["rows"], strict=True):
            with self.lock:
                loaded = self.rows.load(np.array(members, np.int64))
            yield pack({"step": row["step"], "slot": slot}, loaded)


class Datasets:
    """The datasets of a group of ranks, which its first rank opens one after the other."""

    def __init__(
        self,
        spec: StreamSpec,
        first: Position,
        max_steps: int,
        rank: int,
        world_size: int,
        broadcast: CollectiveBroadcast,
        loader_resources: Mapping[str, float] | None = None,
        make_rows: MakeRows = row_loader,
    ):
        """Open the first dataset in the background. A collective call.

        Args:
            spec: names the data and its order.
            first: position of the first step.
            max_steps: number of the run's steps.
            rank: rank of this worker.
            world_size: number of workers, W.
            broadcast: hands rank 0's object to all ranks.
            loader_resources: further resources of the cluster that each loader takes.
            make_rows: returns what loads the rows that a spec names.
        """
        self.spec = spec
        self.make_rows = make_rows
        self.max_steps = max_steps
        self.world_size = world_size
        self.group = Group.of(rank, world_size, spec.data.loader_count)
        self.place = rank - self.group.ranks[0]
        self.loader_resources = dict(loader_resources or {})
        self.turns = -(-spec.cut.micro_batches_per_step // world_size)  # rows of a rank per step
        self.step_time = StepTime()
        self.executions: list[ray.actor.ActorHandle] = []  # of the newest two datasets
        self.stopped = threading.Event()

        # one per group, which whichever of its ranks comes first starts
        name = broadcast(f"orders-{uuid.uuid4().hex}")
        self.orders = start_orders(
            f"{name}-{self.group.number}", spec.data.prefetch_steps, first.step, max_steps
        )
        self.ordered = first  # position behind the last step that was ordered
        self.number = -1  # of the newest dataset
        self.current: DatasetRows = self._open()
        self.following: DatasetRows | None = None

    def take(self, position: Position) -> list[pa.Table] | None:
        """Return this rank's rows of a step; None if it is to load the step itself.

        It does so while Ray Data is not there, which takes many seconds to start: a run that was
        killed or resized does not wait for it.

        Args:
            position: position of the step: every one in turn.
        """
        step = position.step
        self._order(position)
        self.step_time.note(step)
        self.number = max(self.number, self.current.number)
        try:
            rows = self.current.take(step)
            if self.current.ended and not self.stopped.is_set():
                # its successor goes on where it has ended
                self.current, self.following = self.following or self._open(), None
                rows = self.current.take(step)
        except DatasetError as error:
            self._give_up(step, error)
            return None
        if rows is not None and self.following is None and self._ends_soon(step):
            self.following = self._open()
        return rows

    def close(self) -> None:
        """End the loaders of all ranks of the group, and this rank's threads, once all took a step.

        Another stream then has the CPUs, and nothing waits for Ray when it is shut down: a process
        that does so is ended by it.
        """
        if self.stopped.is_set():
            return
        self.stopped.set()
        if self.place == 0 and ray.is_initialized():
            for actor in (*self.executions, self.orders):
                ray.kill(actor)
        for rows in filter(None, (self.current, self.following)):
            rows.close()

    @property
    def steps_per_dataset(self) -> int:
        """Number of steps of a dataset."""
        return max(MICRO_BATCHES_PER_DATASET // (len(self.group.ranks) * self.turns), 1)

    def _order(self, position: Position) -> None:
        """Order what may be loaded by now. The group's first rank does it for all."""
        if self.place != 0:
            return
        schedule = schedule_of(self.spec)
        end = min(position.step + self.spec.data.prefetch_steps + 1, self.max_steps)
        orders = []
        while self.ordered.step < end:
            orders.append(order_of(schedule, self.ordered, self.group.ranks, self.world_size))
            self.ordered = schedule.after(self.ordered)
        self.orders.place.remote(orders, position.step)

    def _ends_soon(self, step: int) -> bool:
        """Tell whether the next dataset is to be opened."""
        end = self.current.begin + self.steps_per_dataset
        return step + self.step_time.steps_in(OPEN_AHEAD_S) >= end < self.max_steps

    def _give_up(self, step: int, error: DatasetError) -> None:
        """Leave a dataset that failed; the next one is opened after a while."""
        if self.stopped.is_set():
            return
        log.warning(
            "step %d: Ray Data failed, this worker reads its shards itself until it is back: %s",
            step,
            error,
        )
        # for all ranks: nobody takes this rank's rows of it any more
        self.orders.end.remote(self.current.number)
        self.current, self.following = self.following or self._open(RETRY_S), None

    def _open(self, delay_s: float = 0.0) -> "DatasetRows":
        """Open the next dataset in the background, and return this rank's rows of it."""
        self.number += 1
        return DatasetRows(self.number, partial(self._split, delay_s), self.turns)

    def _split(self, delay_s: float, number: int) -> tuple[int, Iterator[pa.Table]]:
        """Return this rank's rows of a dataset, which the group's first rank opens.

        Args:
            delay_s: seconds to wait before it is opened.
            number: number of the dataset.

        Returns:
            Its number, and the rows. It is one behind, if this one could not be opened.
        """
        if self.place == 0:
            if self.stopped.wait(delay_s):
                return number, iter(())
            ray.get(self.orders.opened.remote(number, self._splits(number)))
        number, split = ray.get(self.orders.split.remote(number, self.place))
        rows = split.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow")
        return number, iter(rows)

    def _splits(self, number: int) -> list[ray.data.DataIterator]:
        """Make a dataset, and split it for the ranks."""
        ray.data.DataContext.get_current().enable_progress_bars = False
        part = self.group.micro_batches_per_call(self.turns, self.spec.data.prefetch_steps)
        read = partial(ordered, self.orders, number, self.steps_per_dataset, part)
        dataset = read_here(read).map_batches(
            Loader,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(self.spec, self.make_rows),
            num_cpus=1,
            resources=self.loader_resources,
            # Actors, as idle task workers are ended within a second, and starting one costs seconds
            # of imports.
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=self.group.loaders,
                max_concurrent_calls_per_actor=CALLS_PER_LOADER,
            ),
        )
        dataset.context.execution_options.preserve_order = True
        # the executor looks ten times a second, and by default finds two blocks of a call: a loader
        # that has eight to make would rest most of the time
        dataset.context._max_num_blocks_in_streaming_gen_buffer = part
        # the source begins when there is a loader: until then the ranks load their steps themselves
        dataset.context.wait_for_min_actors_s = NEVER_S
        # a validation may take long, and nothing is ordered meanwhile
        dataset.context.execution_no_progress_timeout_s = -1
        # reading /proc once per call costs more than it tells
        dataset.context.memory_usage_poll_interval_s = None
        splits = dataset.streaming_split(len(self.group.ranks), equal=True)

        # the actor that executes the dataset and owns its loaders; Ray has no public way to end it
        # early
        split: Any = splits[0]
        self.executions = [*self.executions[-1:], split._coord_actor]
        if self.stopped.is_set():
            ray.kill(self.executions[-1])
        return splits


class DatasetRows:
    """A rank's rows of a dataset, step by step; a thread opens it and reads one step ahead."""

    def __init__(
        self, number: int, split: Callable[[int], tuple[int, Iterator[pa.Table]]], turns: int
    ):
        """Open the dataset.

        Args:
            number: its number.
            split: opens it, or one behind it; returns its number and rows.
            turns: number of its rows per step.
        """
        self.number = number
        self.turns = turns
        self.begin = 0  # its first step, once it has been reached
        self.reached = False
        self.wanted = 0  # the rank has loaded the steps before it itself
        self.ended = False
        self.head: list[pa.Table] = []
        self.closed = False
        self.steps = queue.Queue[list[pa.Table] | Exception](maxsize=1)
        self.thread = threading.Thread(
            target=self._read, args=(split,), name="dataset", daemon=True
        )
        self.thread.start()

    def take(self, step: int) -> list[pa.Table] | None:
        """Return the rows of a step; None if the dataset does not have it, or not yet.

        Once it has had a step, its further ones are waited for.

        Raises:
            DatasetError: Ray Data failed.
        """
        while not self.ended and (not self.head or step_of(self.head[0]) < step):
            stale = bool(self.head)
            try:
                # a step behind one that is passed over is on its way
                found = self.steps.get(self.reached or stale, None if self.reached else AT_HAND_S)
            except queue.Empty:
                self.wanted = step + 1
                return None
            if isinstance(found, RayError):
                raise DatasetError(str(found).strip().splitlines()[-1]) from found
            if isinstance(found, Exception):
                raise found
            self._advance(found)
        if self.ended or step_of(self.head[0]) > step:
            return None
        if not self.reached:
            self.begin, self.reached = step, True
        return self.head

    def close(self) -> None:
        """End the thread, and whoever waits for a step.

        If its source does not answer, it is left to itself.
        """
        self.closed = True
        with contextlib.suppress(queue.Empty):
            self.steps.get_nowait()
        with contextlib.suppress(queue.Full):
            self.steps.put_nowait([])
        self.thread.join(END_WITHIN_S)

    def _advance(self, found: list[pa.Table]) -> None:
        assert not found or not self.head or step_of(found[0]) > step_of(self.head[0]), (
            "Ray Data changed the order of the rows"
        )
        self.head = found
        self.ended = not found

    def _read(self, split: Callable[[int], tuple[int, Iterator[pa.Table]]]) -> None:
        try:
            self.number, rows = split(self.number)
            while not self.closed:
                found = list(islice(rows, self.turns))
                if found and step_of(found[0]) < self.wanted:
                    continue
                self._hand(found)
                if not found:
                    return
        except Exception as error:  # noqa: BLE001  # raised again where the rows are taken
            self._hand(error)

    def _hand(self, found: list[pa.Table] | Exception) -> None:
        while not self.closed:
            try:
                self.steps.put(found, timeout=CLOSED_WITHIN_S)
            except queue.Full:
                continue
            return
