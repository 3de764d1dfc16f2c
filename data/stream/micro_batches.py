"""The schedule executed: this rank's micro-batches of each step, the same for any world size.

Ranks share the micro-batches of a step by `Schedule.shares`. A dataset of Ray Data covers many
global steps, over epoch ends too, and the next one is opened while the last steps of this one run,
so that neither waits for the other. The first steps of a stream are loaded by the worker itself:
Ray Data takes many seconds to start, and a run that was killed or resized must not wait for it.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import torch

from data.plan.epoch_plan import Position
from data.stream.collate import TtsBatch
from data.stream.collectives import CollectiveBroadcast
from data.stream.damage import Damage
from data.stream.datasets import DatasetError, Datasets
from data.stream.feeding import Courier, Feed, Shipment
from data.stream.loading import Loaded, row_loader
from data.stream.packing import unpack
from data.stream.spec import StreamSpec, schedule_of

log = logging.getLogger("bert_vits2_ray")

ROWS_PER_DATASET = 2048
# a block per row takes over a millisecond to make, and the first ones are waited for
ROWS_OF_FIRST_DATASET = 512
CPU = torch.device("cpu")
STEPS_AHEAD = 4  # a dataset is opened this many steps before its first

# a rank's share of a global step: (number j of the micro-batch, what was loaded)
Slots = list[tuple[int, Loaded]]


@dataclass(frozen=True)
class MicroBatch:
    """One of a rank's micro-batches of a global step, on the device with its spectrogram.

    `slot` is its number j within the G.
    """

    slot: int
    batch: TtsBatch


@dataclass(frozen=True)
class OpenDataset:
    """A dataset that is being read.

    Attributes:
        first: position of its first step.
        end: position behind its last step.
        rows: this rank's rows of it.
    """

    first: Position
    end: Position
    rows: Iterator[pa.Table]


@dataclass(frozen=True)
class ReadyStep:
    """A rank's share of a global step, on its way to the device.

    Attributes:
        step: number of the step.
        taken: what was loaded.
        shipments: slot -> micro-batch, of those that have arrays.
    """

    step: int
    taken: Slots
    shipments: dict[int, Shipment]


class MicroBatchStream:
    """This rank's micro-batches of each global step, in order, from a position to `max_steps`.

    Taking the next step is a collective call.
    """

    def __init__(
        self,
        spec: StreamSpec,
        first: Position,
        max_steps: int,
        rank: int,
        world_size: int,
        broadcast: CollectiveBroadcast,
        device: torch.device = CPU,
        damage: Damage | None = None,
        loader_resources: Mapping[str, float] | None = None,
    ):
        """Start the stream; all arguments but `rank` are the same on all ranks. A collective call.

        Args:
            spec: names the data and its order.
            first: position of the first step.
            max_steps: number of the run's steps.
            rank: rank of this worker.
            world_size: number of workers, W, at most G.
            broadcast: hands rank 0's object to all ranks.
            device: where the micro-batches are brought.
            damage: notes damaged rows, and makes the collective call before each step.
            loader_resources: further resources of the cluster that each loader takes.

        Raises:
            ValueError: there are more workers than micro-batches per step.
        """
        micro_batches = spec.cut.micro_batches_per_step
        if world_size > micro_batches:
            raise ValueError(
                f"{world_size} workers cannot share {micro_batches} micro-batches per step: "
                "raise train.micro_batches_per_step or lower scaling.num_workers"
            )
        self.spec = spec
        self.first = first
        self.max_steps = max_steps
        self.rank = rank
        self.world_size = world_size
        self.courier = Courier(device, spec.data)
        self.damage = damage or Damage()
        self.stopped = False

        self.own_steps = min(STEPS_AHEAD, max_steps - first.step)
        self.rows_per_step = -(-micro_batches // world_size)
        self.datasets = Datasets(
            spec, first.step + self.own_steps, rank, world_size, broadcast, loader_resources
        )

    def __iter__(self) -> Generator[list[MicroBatch]]:
        """Yield the micro-batches of each global step. Every `next` is a collective call.

        Raises:
            BadRowsError: on all ranks, before the step that would need the rows.
        """
        # the thread makes no collective call: those come in one order on all ranks
        try:
            with Feed(self._loaded(), self._ready) as feed:
                for ready in feed:
                    if ready.step >= self.first.step + self.own_steps:
                        self.datasets.reached(ready.step)
                    yield self._checked_on_all_ranks(ready)
        finally:
            self.stopped = True

    def _loaded(self) -> Generator[tuple[int, Slots]]:
        """Yield number and micro-batches of each global step, as they are loaded."""
        # first, so that Ray Data starts while this worker loads its own steps
        dataset = self._open(self._ahead(self.first, self.own_steps), ROWS_OF_FIRST_DATASET)
        own = self._loaded_here(self.first, self.own_steps)
        yield from enumerate(own, self.first.step)

        while dataset is not None:
            following = None
            steps = self._steps_of(dataset)
            for step in range(dataset.first.step, dataset.end.step):
                # the next one starts while the last steps of this one are trained on
                if step == max(dataset.end.step - STEPS_AHEAD, dataset.first.step):
                    following = self._open(dataset.end, ROWS_PER_DATASET)
                taken = next(steps, None)
                if taken is None:  # stopped
                    return
                yield step, taken
            dataset = following

    def stop(self) -> None:
        """End the loaders in mid-stream, for another stream; no rank may take a step after it."""
        self.stopped = True
        self.datasets.stop()

    def _ready(self, loaded: tuple[int, Slots]) -> ReadyStep:
        """Send what was loaded for a step to the device."""
        step, taken = loaded
        shipments = {slot: self.courier.ship(own.arrays) for slot, own in taken if own.arrays}
        return ReadyStep(step, taken, shipments)

    def _open(self, first: Position, rows: int) -> OpenDataset | None:
        """Open a dataset of about so many rows in the background; None at the end of the run."""
        steps = max(rows // (self.rows_per_step * self.world_size), STEPS_AHEAD)
        steps = min(steps, self.max_steps - first.step)
        if steps <= 0:
            return None
        return OpenDataset(first, self._ahead(first, steps), self.datasets.open(first, steps))

    def _ahead(self, position: Position, steps: int) -> Position:
        """Return the position some global steps on."""
        for _ in range(steps):
            position = schedule_of(self.spec).after(position)
        return position

    def _loaded_here(self, first: Position, steps: int) -> Iterator[Slots]:
        """Yield steps that a thread of this process loads, because there is no dataset for them."""
        schedule = schedule_of(self.spec)
        loader = row_loader(self.spec)

        def load(position: Position) -> Slots:
            plan = schedule.plan(position.epoch)
            own = schedule.shares(position, self.world_size)[self.rank]
            return [
                (slot, loader.load(plan.micro_batch(position.epoch_step, slot))) for slot in own
            ]

        with ThreadPoolExecutor(1) as thread:
            position = first
            loading = deque[Future[Slots]]()
            for _ in range(steps):
                loading.append(thread.submit(load, position))
                position = schedule.after(position)
                if len(loading) == STEPS_AHEAD:
                    yield loading.popleft().result()
            while loading:
                yield loading.popleft().result()

    def _steps_of(self, dataset: OpenDataset) -> Iterator[Slots]:
        """Yield the steps of a dataset; if it fails, this process loads the rest of them."""
        position = dataset.first
        while position != dataset.end:
            try:
                taken = self._take(dataset.rows, position)
            except DatasetError as error:
                if self.stopped:
                    return
                log.warning(
                    "step %d: Ray Data failed, this worker reads its shards itself: %s",
                    position.step,
                    error,
                )
                yield from self._loaded_here(position, dataset.end.step - position.step)
                return
            yield taken
            position = self._ahead(position, 1)

    def _take(self, rows: Iterator[pa.Table], position: Position) -> Slots:
        """Take this rank's micro-batches of a step out of the rows of a dataset."""
        own = schedule_of(self.spec).shares(position, self.world_size)[self.rank]
        taken = []
        for number in range(self.rows_per_step):
            place, loaded = unpack(next(rows))
            slot = place["slot"]
            # behind this rank's own come empty ones
            wanted = slot == own[number] if number < len(own) else not loaded.arrays
            assert wanted and place["step"] == position.step, (
                "Ray Data changed the order of the rows"
            )
            taken.append((slot, loaded))
        return taken

    def _checked_on_all_ranks(self, ready: ReadyStep) -> list[MicroBatch]:
        """Return a step's micro-batches if all ranks can train on theirs. A collective call."""
        for _, loaded in ready.taken:
            self.damage.note(loaded.error, loaded.replaced)
        # all stop alike: the others would wait for this rank when gradients are summed
        self.damage.raise_on_all_ranks()

        return [MicroBatch(slot, shipment.received()) for slot, shipment in ready.shipments.items()]
