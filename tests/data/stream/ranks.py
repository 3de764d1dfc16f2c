"""Several ranks of one stream, each in a thread, and what they should receive together."""

import threading
import time

from data.plan.epoch_plan import Position
from data.stream.damage import BadRowsError, Damage
from data.stream.micro_batches import MicroBatchStream
from data.stream.spec import StreamSpec, schedule_of

Step = dict[int, list[int]]  # slot -> rows of the manifest
OWN_STEPS = 1  # after which the ranks wait for Ray Data: the steps are faster than its start


class Ranks:
    """The collective calls of threads."""

    def __init__(self, world_size: int):
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size)
        self.things: dict[int, object] = {}

    def all_gather(self, thing, rank: int) -> list:
        self.things[rank] = thing
        self.barrier.wait()
        everyone = [self.things[other] for other in range(self.world_size)]
        self.barrier.wait()
        return everyone

    def broadcast(self, thing, rank: int):
        return self.all_gather(thing, rank)[0]

    def agree(self, error: str, rank: int) -> str:
        return next(filter(None, self.all_gather(error, rank)), "")


def wait_for_ray_data(stream: MicroBatchStream, timeout: float = 60) -> None:
    """Wait until Ray Data has a step for a rank, if there are any left for it."""
    deadline = time.monotonic() + timeout
    while not stream.datasets.current.steps.full():
        assert time.monotonic() < deadline, "Ray Data does not begin"
        time.sleep(0.05)


def take(
    spec: StreamSpec, first: Position, max_steps: int, world_size: int, errors: list | None = None
) -> list[Step]:
    """Return what W workers receive, by step; `errors` takes the errors that end them."""
    ranks = Ranks(world_size)
    taken: list[list[Step]] = [[] for _ in range(world_size)]

    def work(rank: int) -> None:
        stream = MicroBatchStream(
            spec,
            first,
            max_steps,
            rank,
            world_size,
            lambda thing: ranks.broadcast(thing, rank),
            damage=Damage(lambda error: ranks.agree(error, rank)),
        )
        try:
            for step, micro_batches in enumerate(stream):
                taken[rank].append({m.slot: m.batch.rows.tolist() for m in micro_batches})
                if step == OWN_STEPS:
                    wait_for_ray_data(stream)
        except BadRowsError as error:
            assert errors is not None, error
            errors.append(str(error))

    threads = [
        threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(world_size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [
        {slot: rows for part in step for slot, rows in part.items()}
        for step in zip(*taken, strict=True)
    ]


def expected(spec: StreamSpec, first: Position, max_steps: int) -> list[Step]:
    """Return what the schedule says of the steps from `first` to `max_steps`."""
    schedule = schedule_of(spec)
    slots = range(spec.cut.micro_batches_per_step)
    position = first
    steps = []
    while position.step < max_steps:
        plan = schedule.plan(position.epoch)
        steps.append({j: plan.micro_batch(position.epoch_step, j).tolist() for j in slots})
        position = schedule.after(position)
    return steps
