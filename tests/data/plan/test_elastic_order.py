"""Any corpus, seed, G, number of workers and cursor: the same micro-batches in the same order."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan.epoch_plan import Position
from data.plan.history import Cut, begun
from data.plan.schedule import Schedule
from data.settings.plan import CostConfig, PlanConfig
from data.stream.orders import NO_SLOT, order_of

Step = dict[int, tuple[int, ...]]  # slot -> rows of the manifest


@dataclass(frozen=True)
class Corpus:
    """Lengths, and how epochs of them are planned."""

    frames: tuple[int, ...]
    seed: int
    G: int
    max_frames: int
    budget: float

    @cached_property
    def schedule(self) -> Schedule:
        frames = np.asarray(self.frames)
        cost = CostConfig(self.budget, utterance=264, frame=0.25)
        plan = PlanConfig(max_frames=self.max_frames, max_utterances=8, cost=cost)
        history = begun(Cut(self.seed, self.G, 0, add_blank=False, plan=plan))
        return Schedule(history, np.arange(len(frames)), frames, 1 + frames % 97)

    def dealt(self, world_size: int, first: Position, steps: int) -> list[Step]:
        """Return what W workers get together, each by its own share of the rows."""
        made: list[Step] = []
        position = first
        for _ in range(steps):
            made.append(self._step(world_size, position))
            position = self.schedule.after(position)
        return made

    def _step(self, world_size: int, position: Position) -> Step:
        order = order_of(self.schedule, position, range(world_size), world_size)
        assert order.step == position.step
        made: Step = {}
        for rank in range(world_size):
            # as streaming_split(W, equal=True) deals them
            slots, rows = order.slots[rank::world_size], order.rows[rank::world_size]
            assert len(slots) == -(-self.G // world_size)
            assert (rank == 0) == (slots[0] == 0)  # its images are the run's
            for slot, members in zip(slots, rows, strict=True):
                if slot == NO_SLOT:
                    assert len(members) == 0
                else:
                    assert slot not in made
                    made[slot] = tuple(members.tolist())
        return made

    def position(self, steps: int) -> Position:
        position = Position()
        for _ in range(steps):
            position = self.schedule.after(position)
        return position


corpora = st.builds(
    Corpus,
    frames=st.lists(st.integers(1, 1200), min_size=1, max_size=80).map(tuple),
    seed=st.integers(0, 2**32),
    G=st.integers(1, 16),
    max_frames=st.integers(100, 6000),
    budget=st.floats(100, 6000),
)


@settings(deadline=None, max_examples=80)
@given(corpora, st.data())
def test_any_number_of_workers_from_any_cursor(corpus, data):
    W = data.draw(st.integers(1, corpus.G), "W")
    cursor = data.draw(st.integers(0, 20), "cursor")
    steps = data.draw(st.integers(1, 12), "steps")
    alone = corpus.dealt(1, Position(), cursor + steps)
    # same steps, same slots, same rows
    assert corpus.dealt(W, corpus.position(cursor), steps) == alone[cursor:]
    assert all(sorted(step) == list(range(corpus.G)) for step in alone)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(0, 3))
def test_every_epoch_uses_every_utterance_once_but_for_the_stated_fill(corpus, epochs):
    for epoch in range(epochs + 1):
        plan = corpus.schedule.plan(epoch)
        first = Position(0, epoch, 0)
        steps = corpus.dealt(min(2, corpus.G), first, plan.steps)
        used = [row for step in steps for slot in sorted(step) for row in step[slot]]
        filled = plan.filled_rows().tolist()
        assert used[len(used) - len(filled) :] == filled
        assert sorted(used[: len(used) - len(filled)]) == list(range(len(corpus.frames)))

        end = first
        for _ in range(plan.steps):
            end = corpus.schedule.after(end)
        assert end == Position(plan.steps, epoch + 1, 0)
