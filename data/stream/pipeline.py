"""The epoch plan executed by Ray Data: shards in, this rank's micro-batches out, in the same order for any world size.

One row of the dataset is one micro-batch and one block, the order is preserved, and
`streaming_split(W, equal=True)` deals rows round robin: rank r gets rows r, r + W, ... A global
step takes ceil(G / W) rows a rank; where W does not divide G the last ones are empty and cost
nothing. So micro-batch j of a step goes to rank j % W, for every W.

A dataset covers many global steps, over epoch ends too, and the next one is opened while the last
steps of this one run, so that neither waits for the other. The first steps of a stream are loaded
by the worker itself: Ray Data takes many seconds to start, and a run that was killed or resized
must not wait for it.
"""

import asyncio
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.config import DataConfig
from data.files import keep_trying
from data.memory import keep_freed_memory
from data.plan.epoch_plan import EpochPlan, Position
from data.plan.history import Change, Cut, History, plan_through
from data.shards.manifest import Manifest, read_manifest
from data.stream.collate import TtsBatch, to_batch
from data.stream.loading import BadRowsError, Loaded, RowLoader, Utterance
from data.stream.packing import PLACE, pack, unpack

log = logging.getLogger("bert_vits2_ray")

ROWS_PER_DATASET = 2048
# a block a row takes over a millisecond to make, and the first ones are waited for
ROWS_OF_FIRST_DATASET = 512
STEPS_AHEAD = 4  # a dataset is opened this many steps before its first

# a rank's share of a global step: (number j of the micro-batch, what was loaded)
Slots = list[tuple[int, Loaded]]


@dataclass(frozen=True)
class StreamSpec:
    """What decides the order of the data.

    Attributes:
        data: where the shards lie, how they are cut and collated.
        digest: of the manifest that the run was started with; another one is refused.
        seed: of the run.
        micro_batches_per_step: G.
        segment_frames: shorter utterances are left out.
        history: changes of what the plan follows from, the present cut the last one; none: there
            were no changes.
    """

    data: DataConfig
    digest: str
    seed: int
    micro_batches_per_step: int
    segment_frames: int
    history: History = ()

    @property
    def cut(self) -> Cut:
        """What epochs are planned by from now on."""
        data = self.data
        return Cut(
            self.seed, self.micro_batches_per_step, self.segment_frames, data.add_blank, data.plan
        )

    @property
    def changes(self) -> History:
        """The history from the run's beginning on."""
        return self.history or (Change(0, 0, self.cut),)


def _manifest(spec: StreamSpec) -> Manifest:
    manifest = _read(spec.data.shards, spec.digest)
    if spec.data.spectrogram_on == "shards" and not manifest.header["spectrograms"]:
        raise ValueError(
            f"data.spectrogram_on is shards, but {spec.data.shards} was prepared without spectrograms: prepare again, "
            "or set it to pipeline or device"
        )
    return manifest


@functools.lru_cache(maxsize=4)
def _read(uri: str, digest: str) -> Manifest:
    manifest = keep_trying(functools.partial(read_manifest, uri))
    if manifest.digest != digest:
        raise ValueError(
            f"{uri} was prepared again since this run began (digest {manifest.digest[:12]}, not {digest[:12]}): "
            "start a new run.name, or restore the shards"
        )
    return manifest


@functools.lru_cache(maxsize=4)
def plan_of(spec: StreamSpec, epoch: int) -> EpochPlan:
    """The plan of an epoch of the training split."""
    manifest = _manifest(spec)
    rows = manifest.rows("train")
    frames, phones = (
        manifest.column("frames")[rows].astype(np.int64),
        manifest.column("phones")[rows].astype(np.int64),
    )
    return plan_through(spec.changes, rows, frames, phones, epoch)


def advance(spec: StreamSpec, position: Position) -> Position:
    """The position one global step on."""
    last = position.epoch_step + 1 == plan_of(spec, position.epoch).steps
    return Position(
        position.step + 1,
        position.epoch + 1 if last else position.epoch,
        0 if last else position.epoch_step + 1,
    )


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Where an actor belongs that is of use to this process alone: on its node, and both die together.

    Ray puts actors that take no CPU on any node: one that goes takes them with it, and an idle one
    stays for them.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@ray.remote(num_cpus=0)
class Pace:
    """What the processes of a stream tell each other: how far the loaders may go, and where the datasets are.

    It holds the loaders back to a number of global steps ahead of the training, which bounds the
    memory.

    Ray Data's own back-pressure bounds it too, but its scheduling loop then spins on results that
    it may not take yet: half a core on a machine that has two.
    """

    def __init__(self, step: int, ahead: int):
        self.step, self.ahead, self.moved = step, ahead, asyncio.Condition()
        self.splits: dict[int, dict[int, ray.data.DataIterator]] = {}

    async def reached(self, step: int) -> None:
        """The training has come to `step`."""
        async with self.moved:
            self.step = step
            self.moved.notify_all()

    async def within_reach(self, step: int) -> int:
        """Returns when `step` may be loaded; and the last step of which that is so."""
        async with self.moved:
            await self.moved.wait_for(lambda: step <= self.step + self.ahead)
            return self.step + self.ahead

    async def opened(self, step: int, splits: list[ray.data.DataIterator]) -> None:
        """The dataset whose first step is `step` is there: a split a rank."""
        async with self.moved:
            self.splits[step] = dict(enumerate(splits))
            self.moved.notify_all()

    async def split(self, step: int, rank: int) -> ray.data.DataIterator:
        """A rank's split of the dataset whose first step is `step`; returns when it is there. To be had once.

        Nothing is kept of it: a dataset's loaders know this actor, and an actor that knew them
            would never be let go.
        """
        async with self.moved:
            await self.moved.wait_for(lambda: step in self.splits)
            split = self.splits[step].pop(rank)
            if not self.splits[step]:
                del self.splits[step]
            return split


class Loader:
    """Reads, decodes and collates micro-batches; the map of the dataset."""

    def __init__(self, spec: StreamSpec, pace: ray.actor.ActorHandle | None = None):
        self.pace, self.rows = pace, RowLoader(_manifest(spec), spec.data, spec.segment_frames)
        self.allowed = -1  # the last step that may be loaded, as far as it is known here
        if pace is not None:  # an actor, with a process of its own
            keep_freed_memory()

    def __call__(self, row: Mapping[str, np.ndarray]) -> pa.Table:
        """A row of `dataset_rows`, of which every value is an array of one, as a row of data.stream.packing.SCHEMA."""
        place = {name: row[name][0].item() for name in PLACE}
        if self.pace is not None and place["step"] > self.allowed:
            self.allowed = int(ray.get(self.pace.within_reach.remote(place["step"])))  # type: ignore[call-overload]
        return pack(place, self.rows.load(row["rows"][0]))


def dataset_rows(spec: StreamSpec, first: Position, steps: int, world_size: int) -> list[dict]:
    """The rows of a dataset: ceil(G / W) x W a global step, from `first` on, for `steps` steps."""
    G, rows, position = spec.micro_batches_per_step, [], first
    slots = -(-G // world_size) * world_size
    for _ in range(steps):
        plan = plan_of(spec, position.epoch)
        for slot in range(slots):
            members = (
                plan.micro_batch(position.epoch_step, slot) if slot < G else np.zeros(0, np.int64)
            )
            rows.append(
                {"step": position.step, "epoch": position.epoch, "slot": slot, "rows": members}
            )
        position = advance(spec, position)
    return rows


@dataclass(frozen=True)
class MicroBatch:
    """One of a rank's micro-batches of a global step; `slot` is its number j within the G."""

    slot: int
    batch: TtsBatch


class Damage:
    """What this rank hears of damaged rows: replacements are said once, errors end the run on all ranks alike."""

    def __init__(self, agree: Callable[[str], str] = str):
        """Nothing is damaged yet.

        Args:
            agree: hands an error that a rank has, or else nothing, to all ranks; a collective call.
        """
        self.agree, self.error, self.said = agree, "", set[str]()

    def hear(self, loaded: Loaded) -> None:
        """Take note of what was wrong with a micro-batch."""
        self.error = self.error or loaded.error
        for line in loaded.replaced:
            if line not in self.said:
                log.warning("%s", line)
        self.said.update(loaded.replaced)

    def settle(self) -> None:
        """End here where any rank cannot go on; all ranks call it.

        Raises:
            BadRowsError: on all ranks.
        """
        error = self.agree(self.error)
        if error:
            raise BadRowsError(error)


class MicroBatchStream:
    """This rank's micro-batches of each global step, in order, from a position to `max_steps`."""

    def __init__(
        self,
        spec: StreamSpec,
        first: Position,
        max_steps: int,
        rank: int,
        world_size: int,
        share: Callable[[Any], Any],
        pin: bool = False,
        damage: Damage | None = None,
        loader_resources: Mapping[str, float] | None = None,
    ):
        """Open the stream; every rank does so with the same arguments but `rank`.

        Args:
            spec: what decides the order.
            first: position of the first step.
            max_steps: the run's last step (exclusive).
            rank: of this worker.
            world_size: W, at most G.
            share: hands rank 0's object to all ranks (a broadcast).
            pin: pin the batches' memory.
            damage: hears of damaged rows.
            loader_resources: further resources of the cluster that each loader takes.

        Raises:
            ValueError: more workers than micro-batches a step.
        """
        if world_size > spec.micro_batches_per_step:
            raise ValueError(
                f"{world_size} workers cannot share {spec.micro_batches_per_step} micro-batches a step: "
                "raise train.micro_batches_per_step or lower scaling.num_workers"
            )
        self.spec, self.max_steps, self.rank, self.world_size = spec, max_steps, rank, world_size
        self.pin, self.damage, self.loader_resources = (
            pin,
            damage or Damage(),
            dict(loader_resources or {}),
        )
        self.first = self.next_dataset = first
        self.executions: list[ray.actor.ActorHandle] = []  # rank 0: of the newest two datasets
        self.stopped = False
        for _ in range(min(STEPS_AHEAD, max_steps - first.step)):
            self.next_dataset = advance(spec, self.next_dataset)
        begin, ahead = self.next_dataset.step, spec.data.prefetch_steps
        own = Pace.options(scheduling_strategy=on_this_node()) if rank == 0 else None  # type: ignore[attr-defined]
        self.pace = share(own and own.remote(begin, ahead))
        self.rows_per_step = -(-spec.micro_batches_per_step // world_size)

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        """Lists of micro-batches, one list a global step; all ranks must take them in step.

        Raises:
            BadRowsError: on all ranks, before the step that would need the rows.
        """
        begin, opened = self.next_dataset, self._open(ROWS_OF_FIRST_DATASET)
        yield from map(self._heard, self._own_steps(self.first, begin.step - self.first.step))
        while opened is not None:
            end, following = self.next_dataset, None
            steps = self._steps_of(opened, begin, end.step - begin.step)
            for step in range(begin.step, end.step):
                if step == max(end.step - STEPS_AHEAD, begin.step):
                    following = self._open(ROWS_PER_DATASET)
                if self.rank == 0:
                    self.pace.reached.remote(step)
                yield self._heard(next(steps))
            begin, opened = end, following

    def stop(self) -> None:
        """End the loaders in mid-stream, so that another stream has their CPUs; no rank may take a step after it."""
        self.stopped = True
        if self.rank == 0:
            for actor in (*self.executions, self.pace):
                ray.kill(actor)

    def _own_steps(self, first: Position, steps: int) -> Iterator[Slots]:
        """Steps that a thread of this process loads, for want of a dataset that works."""
        rows = RowLoader(_manifest(self.spec), self.spec.data, self.spec.segment_frames)

        def load(position: Position) -> Slots:
            plan = plan_of(self.spec, position.epoch)
            slots = range(self.rank, self.spec.micro_batches_per_step, self.world_size)
            return [
                (slot, rows.load(plan.micro_batch(position.epoch_step, slot))) for slot in slots
            ]

        with ThreadPoolExecutor(1) as thread:
            position, loading = first, deque[Future[Slots]]()
            for _ in range(steps):
                loading.append(thread.submit(load, position))
                position = advance(self.spec, position)
                if len(loading) == STEPS_AHEAD:
                    yield loading.popleft().result()
            while loading:
                yield loading.popleft().result()

    def _steps_of(self, rows: Iterator[pa.Table], first: Position, steps: int) -> Iterator[Slots]:
        """Steps of a dataset. Where it fails, as on a node that is going, this process loads what is left of them."""
        position = first
        for k in range(steps):
            try:
                taken = self._take(rows, position.step)
            except RayError as error:
                cause = str(error).strip().splitlines()[-1]
                log.warning(
                    "step %d: Ray Data fails, this worker reads its shards itself: %s",
                    position.step,
                    cause,
                )
                yield from self._own_steps(position, steps - k)
                return
            yield taken
            position = advance(self.spec, position)

    def _open(self, rows: int) -> Iterator[pa.Table] | None:
        """Open the next dataset, of about so many rows, in the background; None where the run ends."""
        first, steps = (
            self.next_dataset,
            max(rows // (self.rows_per_step * self.world_size), STEPS_AHEAD),
        )
        steps = min(steps, self.max_steps - first.step)
        if steps <= 0:
            return None
        for _ in range(steps):
            self.next_dataset = advance(self.spec, self.next_dataset)

        def split() -> Iterator[pa.Table]:
            if self.rank == 0:
                ray.get(self.pace.opened.remote(first.step, self._splits(first, steps)))
            own = ray.get(self.pace.split.remote(first.step, self.rank))
            return iter(own.iter_batches(batch_size=1, prefetch_batches=2, batch_format="pyarrow"))

        return BackgroundRows(split)

    def _splits(self, first: Position, steps: int) -> list[ray.data.DataIterator]:
        """A dataset, split for the ranks."""
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = dataset_rows(self.spec, first, steps, self.world_size)
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
                min_size=1, max_size=self.spec.data.loaders, max_concurrent_calls_per_actor=2
            ),
        )
        dataset.context.execution_options.preserve_order = True
        # reading /proc once a call costs more than it tells
        dataset.context.memory_usage_poll_interval_s = None
        splits = dataset.streaming_split(self.world_size, equal=True)
        # the actor that executes the dataset and owns its loaders; Ray has no public way to end it
        # early
        self.executions = [*self.executions[-1:], splits[0]._coord_actor]  # type: ignore[attr-defined]
        if self.stopped:
            ray.kill(self.executions[-1])
        return splits

    def _take(self, rows: Iterator[pa.Table], step: int) -> Slots:
        taken = []
        for k in range(self.rows_per_step):
            place, loaded = unpack(next(rows))
            slot = k * self.world_size + self.rank
            assert (place["step"], place["slot"]) == (step, slot), (
                "Ray Data changed the order of the rows"
            )
            taken.append((slot, loaded))
        return taken

    def _heard(self, taken: Slots) -> list[MicroBatch]:
        """A step's micro-batches, after all ranks have agreed that they can be trained on; a collective call."""
        for _, loaded in taken:
            self.damage.hear(loaded)
        self.damage.settle()
        inactive = self.spec.data.bert.inactive
        return [
            MicroBatch(slot, to_batch(own.arrays, self.pin, inactive))
            for slot, own in taken
            if own.arrays
        ]


class BackgroundRows(Iterator[pa.Table]):
    """Rows of a dataset that a thread opens, and whose first row it asks for: from then on Ray Data executes it."""

    def __init__(self, split: Callable[[], Iterator[pa.Table]]):
        self.rows, self.first, self.begun = iter(()), Future[pa.Table](), False
        threading.Thread(target=self._begin, args=(split,), daemon=True).start()

    def _begin(self, split: Callable[[], Iterator[pa.Table]]) -> None:
        try:
            self.rows = split()
            self.first.set_result(next(self.rows))
        except Exception as error:  # noqa: BLE001  # whatever it is, the one who takes the row is told
            self.first.set_exception(error)

    def __next__(self) -> pa.Table:
        if self.begun:
            return next(self.rows)
        self.begun = True
        return self.first.result()


def evaluation_rows(spec: StreamSpec, split: str, limit: int) -> np.ndarray:
    """Rows of `limit` utterances of a split, int64 [n]: the same for every run.

    They are ordered by a hash of their ids, so that any first few of them are a fair sample of
    speakers.
    """
    manifest = _manifest(spec)
    rows = manifest.rows(split)
    rows = rows[manifest.column("frames")[rows] >= spec.segment_frames]
    return rows[np.argsort(pd.util.hash_array(manifest.column("id")[rows]), kind="stable")][:limit]


def evaluation_set(
    spec: StreamSpec, rows: np.ndarray, rank: int, world_size: int, damage: Damage
) -> Iterator[Utterance]:
    """The utterances of a set whose number % world_size == rank.

    What cannot be read is left out: `damage` hears of it, and is to be settled by all ranks
    afterwards.
    """
    loader, languages = (
        RowLoader(_manifest(spec), spec.data, spec.segment_frames),
        _manifest(spec).column("language"),
    )
    for number in range(rank, len(rows), world_size):
        loaded, row = loader.load(rows[number : number + 1]), int(rows[number])
        damage.hear(loaded)
        if loaded.arrays:
            batch = to_batch(loaded.arrays, inactive=spec.data.bert.inactive)
            text = loader.text(int(batch.rows[0]))
            yield Utterance(number, row, batch, text, languages[row])
