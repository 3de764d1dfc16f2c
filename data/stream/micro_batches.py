"""The schedule executed: this rank's micro-batches of each step, the same for any world size.

Ranks share the micro-batches of a step by `Schedule.shares`. Ray Data loads them. It takes many
seconds to start, and it fails on a node that is about to leave: while it is not there the worker
loads its micro-batches itself, so that a run that was killed or resized does not wait. The bits are
the same.
"""

import functools
import logging
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from data.plan.epoch_plan import Position
from data.stream.collate import TtsBatch
from data.stream.collectives import CollectiveBroadcast
from data.stream.damage import Damage
from data.stream.datasets import Datasets
from data.stream.feeding import Courier, Feed, Shipment
from data.stream.loading import Loaded, MakeRows, Rows, row_loader
from data.stream.orders import NO_SLOT
from data.stream.packing import unpack
from data.stream.spec import StreamSpec, schedule_of

log = logging.getLogger("bert_vits2_ray")

CPU = torch.device("cpu")
PATIENCE_S = 120.0  # a worker that loads its micro-batches itself for longer says so

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
        make_rows: MakeRows = row_loader,
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
            make_rows: returns what loads the rows that a spec names.

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
        self.make_rows = make_rows
        self.courier = Courier(device, spec.data)
        self.damage = damage or Damage()
        self.stopped = False

        self.alone_since: float | None = time.monotonic()  # None: Ray Data is there
        self.datasets = Datasets(
            spec, first, max_steps, rank, world_size, broadcast, loader_resources, make_rows
        )

    def __iter__(self) -> Generator[list[MicroBatch]]:
        """Yield the micro-batches of each global step. Every `next` is a collective call.

        Raises:
            BadRowsError: on all ranks, before the step that would need the rows.
        """
        # the thread makes no collective call: those come in one order on all ranks
        with Feed(self._loaded(), self._ready) as feed:
            try:
                for ready in feed:
                    yield self._checked_on_all_ranks(ready)
            finally:
                self.stopped = True
                self.datasets.close()  # what the thread may wait for

    def _loaded(self) -> Generator[tuple[int, Slots]]:
        """Yield number and micro-batches of each global step, as they are loaded."""
        schedule = schedule_of(self.spec)
        position = self.first
        while position.step < self.max_steps:
            rows = self.datasets.take(position)
            if self.stopped:
                return
            self._note_who_loads(position.step, rows is not None)
            own = schedule.shares(position, self.world_size)[self.rank]
            taken = self._loaded_here(position, own) if rows is None else unpacked(rows, own)
            yield position.step, taken
            position = schedule.after(position)

    def stop(self) -> None:
        """End it in mid-stream, for another stream; no rank may take a step after it."""
        self.stopped = True
        self.datasets.close()

    def _ready(self, loaded: tuple[int, Slots]) -> ReadyStep:
        """Send what was loaded for a step to the device."""
        step, taken = loaded
        shipments = {slot: self.courier.ship(own.arrays) for slot, own in taken if own.arrays}
        return ReadyStep(step, taken, shipments)

    @functools.cached_property
    def _rows(self) -> Rows:
        """What loads micro-batches in this process."""
        return self.make_rows(self.spec)

    def _loaded_here(self, position: Position, own: Sequence[int]) -> Slots:
        """Load micro-batches of a step in this process."""
        plan = schedule_of(self.spec).plan(position.epoch)
        return [
            (slot, self._rows.load(plan.micro_batch(position.epoch_step, slot))) for slot in own
        ]

    def _note_who_loads(self, step: int, ray_data: bool) -> None:
        """Log who loads from a step on, and that this worker has done so for long."""
        now = time.monotonic()
        if ray_data:
            if self.alone_since is not None:
                log.info("step %d: Ray Data loads the micro-batches from here on", step)
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = now
        elif now - self.alone_since > PATIENCE_S:
            log.warning(
                "step %d: Ray Data delivers nothing yet, this worker reads its shards itself: does "
                "the cluster have CPUs for data.loaders (scaling.loader_resources)?",
                step,
            )
            self.alone_since = now

    def _checked_on_all_ranks(self, ready: ReadyStep) -> list[MicroBatch]:
        """Return a step's micro-batches if all ranks can train on theirs. A collective call."""
        for _, loaded in ready.taken:
            self.damage.note(loaded.error, loaded.replaced)
        # all stop alike: the others would wait for this rank when gradients are summed
        self.damage.raise_on_all_ranks()

        return [MicroBatch(slot, shipment.received()) for slot, shipment in ready.shipments.items()]


def unpacked(rows: Sequence[pa.Table], own: Sequence[int]) -> Slots:
    """Return a rank's share of a step.

    Args:
        rows: rows of `data.stream.packing.schema`; behind the rank's own come empty ones.
        own: number j of each of its micro-batches.
    """
    found = [unpack(row) for row in rows]
    slots = [place["slot"] for place, _ in found]
    assert slots[: len(own)] == list(own) and set(slots[len(own) :]) <= {NO_SLOT}, (
        "Ray Data changed the order of the rows"
    )
    return [(slot, loaded) for slot, (_, loaded) in zip(own, found, strict=False)]
