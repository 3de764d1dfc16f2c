"""For any corpus, seed, G, number of workers and cursor: the same micro-batches in the same global order."""

from dataclasses import dataclass
from functools import cache
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from data.plan.epoch_plan import EpochPlan, Position, plan_epoch
from data.stream.pipeline import StreamSpec, advance, dataset_rows

Step = dict[int, tuple[int, ...]]  # slot -> rows of the manifest


@dataclass
class Corpus:
    """Lengths in place of a manifest, and how its epochs are planned."""

    frames: list[int]
    seed: int
    G: int
    max_frames: int

    def plan_of(self, epoch: int) -> EpochPlan:
        frames = np.asarray(self.frames)
        return plan_epoch(
            np.arange(len(frames)),
            frames,
            1 + frames % 97,
            seed=self.seed,
            epoch=epoch,
            micro_batches_per_step=self.G,
            max_frames=self.max_frames,
            max_utterances=8,
        )

    def dealt(self, world_size: int, first: Position, steps: int) -> list[Step]:
        """What W workers get together, each by its own share of the rows in the order that Ray Data deals them."""
        rows = dataset_rows(spec_of(self), first, steps, world_size)
        # streaming_split(W, equal=True)
        shares = [rows[rank::world_size] for rank in range(world_size)]
        per_step = -(-self.G // world_size)
        made: list[Step] = [{} for _ in range(steps)]
        for rank, share in enumerate(shares):
            assert len(share) == steps * per_step
            for i, row in enumerate(share):
                step, slot = divmod(i, per_step)[0], (i % per_step) * world_size + rank
                assert (row["step"], row["slot"]) == (first.step + step, slot)
                if slot < self.G:
                    made[step][slot] = tuple(row["rows"].tolist())
                else:
                    assert len(row["rows"]) == 0
        return made

    def position(self, steps: int) -> Position:
        position = Position()
        for _ in range(steps):
            position = advance(spec_of(self), position)
        return position


def spec_of(corpus: Corpus) -> StreamSpec:
    return StreamSpec(DataConfig(), "", corpus.seed, corpus.G, segment_frames=0)


corpora = st.builds(
    Corpus,
    frames=st.lists(st.integers(1, 1200), min_size=1, max_size=80),
    seed=st.integers(0, 2**32),
    G=st.integers(1, 16),
    max_frames=st.integers(100, 6000),
)


@settings(deadline=None, max_examples=80)
@given(corpora, st.data())
def test_any_number_of_workers_from_any_cursor(corpus, data):
    W, cursor = data.draw(st.integers(1, corpus.G), "W"), data.draw(st.integers(0, 20), "cursor")
    steps = data.draw(st.integers(1, 12), "steps")
    with patch("data.stream.pipeline.plan_of", cache(lambda _, epoch: corpus.plan_of(epoch))):
        alone = corpus.dealt(1, Position(), cursor + steps)
        # same steps, same slots, same rows
        assert corpus.dealt(W, corpus.position(cursor), steps) == alone[cursor:]
    assert all(sorted(step) == list(range(corpus.G)) for step in alone)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(0, 3))
def test_every_epoch_uses_every_utterance_once_but_for_the_stated_fill(corpus, epochs):
    with patch("data.stream.pipeline.plan_of", cache(lambda _, epoch: corpus.plan_of(epoch))):
        for epoch in range(epochs + 1):
            plan, first = corpus.plan_of(epoch), Position(0, epoch, 0)
            steps = corpus.dealt(min(2, corpus.G), first, plan.steps)
            used = [row for step in steps for slot in sorted(step) for row in step[slot]]
            filled = plan.filled_rows().tolist()
            assert used[len(used) - len(filled) :] == filled
            assert sorted(used[: len(used) - len(filled)]) == list(range(len(corpus.frames)))
            end = first
            for _ in range(plan.steps):
                end = advance(spec_of(corpus), end)
            assert end == Position(plan.steps, epoch + 1, 0)
