"""The epoch plan: which utterances train together, in which order, as a pure function.

`plan_epoch(lengths, seed, epoch, G)` returns an ordered list of micro-batches of utterances of like
length. A global step is G consecutive micro-batches, whatever the number of workers, so that a
`Position` is the whole state of the data: no iterator, sampler or random generator has to be saved.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data.plan.blocks import STRIP_OF_BLOCKS, Blocks, in_strips
from data.plan.costs import fitting, shares, utterance_costs
from data.settings.plan import CostConfig, PadTo

UNPADDED = PadTo(frames=1, tokens=1)
Lengths = TypeVar("Lengths", int, np.ndarray)

# utterances whose lengths differ by less than about this share are batched by their phones instead
STRIP = 0.02


@dataclass(frozen=True)
class Position:
    """Where a run stands, all counted from 0.

    Attributes:
        step: global steps that are done, which is also the number of the next one.
        epoch: epoch of the next step.
        epoch_step: number of the next step within its epoch.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0


@dataclass(frozen=True)
class EpochPlan:
    """The micro-batches of one epoch, in order.

    Attributes:
        order: row numbers, int [n], micro-batch after micro-batch.
        offsets: int64 [M + 1]; micro-batch m holds order[offsets[m]:offsets[m + 1]].
        begins: int64 [S + 1]; step s has micro-batches begins[s] to begins[s + 1] - 1, G of them.
        fill: micro-batches at the end that repeat earlier ones of this epoch, to fill up its last
            step.
        left_out: row numbers that this epoch does not use, int.
        costs: predicted cost of each micro-batch, float64 [M]; all 1 where none is predicted.
    """

    order: np.ndarray
    offsets: np.ndarray
    begins: np.ndarray
    fill: int
    left_out: np.ndarray
    costs: np.ndarray

    @property
    def steps(self) -> int:
        """Number of global steps in the epoch."""
        return len(self.begins) - 1

    def micro_batch(self, step: int, slot: int) -> np.ndarray:
        """Return the row numbers, int64 [b], of one micro-batch.

        Args:
            step: global step of the epoch.
            slot: number of the micro-batch within the step, 0 to G - 1.
        """
        m = self.begins[step] + slot
        assert m < self.begins[step + 1]
        return self.order[self.offsets[m] : self.offsets[m + 1]].astype(np.int64, copy=False)

    def shares(self, step: int, workers: int) -> list[list[int]]:
        """Return the numbers of the micro-batches of a step that each of W workers takes.

        Args:
            step: global step of the epoch.
            workers: W, at most G.
        """
        return shares(self.costs[self.begins[step] : self.begins[step + 1]].tolist(), workers)

    def utterances(self, step: int) -> int:
        """Return the number of utterances in a global step of the epoch."""
        return int(self.offsets[self.begins[step + 1]] - self.offsets[self.begins[step]])

    def filled_rows(self) -> np.ndarray:
        """Return the row numbers that the fill repeats, int64."""
        first = len(self.offsets) - 1 - self.fill
        return self.order[self.offsets[first] :]

    def parted(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the row numbers, int64, of the steps before `step`, and those of the others."""
        at = self.offsets[self.begins[step]]
        return self.order[:at], self.order[at:]

    def then(self, step: int, rest: "EpochPlan") -> "EpochPlan":
        """Return the steps before `step`, followed by another plan of what they have not used."""
        m = self.begins[step]
        return EpochPlan(
            order=np.concatenate([self.order[: self.offsets[m]], rest.order]),
            offsets=np.concatenate([self.offsets[:m], self.offsets[m] + rest.offsets]),
            begins=np.concatenate([self.begins[:step], m + rest.begins]),
            fill=rest.fill,
            left_out=rest.left_out,
            costs=np.concatenate([self.costs[:m], rest.costs]),
        )


def plan_epoch(
    rows: np.ndarray,
    frames: np.ndarray,
    phones: np.ndarray,
    *,
    seed: int,
    epoch: int,
    micro_batches_per_step: int,
    max_frames: int | None = None,
    max_utterances: int | None = None,
    max_cells: int | None = None,
    cost: CostConfig | None = None,
    min_frames: int = 0,
    pad_to: PadTo = UNPADDED,
    begin: int = 0,
    block: int = 1,
    generations: np.ndarray | None = None,
) -> EpochPlan:
    """Cut an epoch into micro-batches of like length and, with `cost`, of like predicted cost.

    All workers wait for the one with the costliest micro-batch, so no step mixes cheap and costly
    ones. The steps themselves are not grouped by cost: each would then have one length.

    Utterances are sorted into strips of nearly equal frames, within a strip by phones (so that both
    paddings stay small), and cut. Where the strips begin, the order of equals and the order of the
    micro-batches come from (seed, epoch), so that every epoch has other batches.

    Args:
        rows: what identifies an utterance, int [n].
        frames: spectrogram frames of each, int [n].
        phones: phones of each, int [n].
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        micro_batches_per_step: G.
        max_frames: most padded frames of a micro-batch, batch size x longest utterance; a longer
            utterance is alone in its own. None for no limit, as for the next two.
        max_utterances: no micro-batch holds more.
        max_cells: most of batch size x longest utterance x most phones.
        cost: what a micro-batch is predicted to cost, and may cost; None for no limit.
        min_frames: shorter utterances are left out.
        pad_to: multiples that a micro-batch is padded to; the budgets are of padded lengths.
        begin: step of the epoch that these are to follow on, see data.plan.history.
        block: utterances that lie side by side in the shards and stay together, but for where a
            micro-batch is cut, see data.plan.blocks; 1: each is by itself.
        generations: number of the preparation that wrote each, int [n]; None: all of one.

    Raises:
        ValueError: nothing is left to train on.
    """
    assert len(rows) == len(frames) == len(phones)
    usable = _usable(frames, min_frames)
    left_out = rows[~usable]
    rows, frames, phones = rows[usable], frames[usable], phones[usable]
    generations = None if generations is None else generations[usable]
    rng = np.random.default_rng(entropy(seed, epoch, begin))
    by_length = _by_length(frames, phones, block, epoch, rng, generations)

    # an upper bound of the longest of every micro-batch that ends here, and ascending
    longest = np.maximum.accumulate(rounded_up(frames[by_length], pad_to.frames))
    most = _most(longest, max_frames, max_utterances, cost)
    offsets = _cut(most, longest, rounded_up(phones[by_length], pad_to.tokens), max_cells)
    costs = _costs(cost, longest, offsets)
    return _shuffle(rows[by_length], offsets, costs, rng, micro_batches_per_step, left_out)


def _usable(frames: np.ndarray, min_frames: int) -> np.ndarray:
    """Tell which utterances are long enough, bool [n]: training cuts segments out of them.

    Raises:
        ValueError: none is.
    """
    usable = frames >= min_frames
    if not usable.any():
        raise ValueError(
            f"no utterance of the training split has {min_frames} frames or more: "
            "lower train.segment_size or add data"
        )
    return usable


def _by_length(
    frames: np.ndarray,
    phones: np.ndarray,
    block: int,
    epoch: int,
    rng: np.random.Generator,
    generations: np.ndarray | None,
) -> np.ndarray:
    """Return the utterances by length, int64 [n], as this epoch's random draws have it.

    Args:
        frames: spectrogram frames of each, int64 [n].
        phones: phones of each, int64 [n].
        block: see `plan_epoch`.
        epoch: number of the epoch.
        rng: draws of the epoch.
        generations: see `plan_epoch`.
    """
    if block == 1:
        return _in_drawn_strips(frames, phones, STRIP, rng)
    blocks = Blocks.of_shards(frames, phones, block, epoch, generations)
    order = _in_drawn_strips(blocks.most(frames), blocks.most(phones), STRIP_OF_BLOCKS, rng)
    return blocks.expanded(order)


def _in_drawn_strips(
    frames: np.ndarray, phones: np.ndarray, width: float, rng: np.random.Generator
) -> np.ndarray:
    """Return an order of lengths, int64 [n]: where strips begin, and almost equals, are drawn."""
    shift = rng.random()
    return in_strips(frames, phones * rng.uniform(0.98, 1.02, len(phones)), width, shift)


def rounded_up(lengths: Lengths, multiple: int) -> Lengths:
    """Return a length, or an array of them, rounded up to a multiple."""
    return -(-lengths // multiple) * multiple


def entropy(seed: int, epoch: int, begin: int) -> list[int]:
    """Return what seeds the random draws of an epoch, or of its rest from step `begin` on."""
    return [seed, epoch, begin] if begin else [seed, epoch]


def _most(
    longest: np.ndarray,
    max_frames: int | None,
    max_utterances: int | None,
    cost: CostConfig | None,
) -> np.ndarray:
    """Return how many utterances a micro-batch may hold whose longest has so many frames.

    Args:
        longest: padded frames, ascending, int64 [n].
        max_frames: see `plan_epoch`, as the next two.
        max_utterances: the same.
        cost: the same.

    Returns:
        int64 [n], descending, at least 1.
    """
    most = np.full(len(longest), max_utterances or len(longest))
    if max_frames is not None:
        most = np.minimum(most, max_frames // longest)
    if cost is not None:
        most = np.minimum(most, fitting(cost, longest))
    return np.maximum(most, 1)


def _cut(
    most: np.ndarray, longest: np.ndarray, phones: np.ndarray, max_cells: int | None
) -> np.ndarray:
    """Cut nearly ascending lengths [n] greedily; what exceeds a budget alone has its own batch.

    Args:
        most: utterances of a micro-batch that ends here, int64 [n], descending.
        longest: padded frames of a micro-batch that ends here, int64 [n].
        phones: padded phones, int64 [n].
        max_cells: most of batch size x longest x most phones; None for no limit.

    Returns:
        Offsets of the micro-batches, int64 [M + 1].
    """
    allowed = most.tolist()
    n = len(allowed)
    offsets = [0]
    begin = 0
    while begin < n:
        count = min(allowed[begin], n - begin)

        # the longest grows with the count: shrink until the batch keeps the budget
        while count > allowed[begin + count - 1]:
            count = allowed[begin + count - 1]

        if max_cells is not None:
            most_phones = np.maximum.accumulate(phones[begin : begin + count])
            cells = most_phones * longest[begin : begin + count] * np.arange(1, count + 1)
            count = max(1, int(np.searchsorted(cells, max_cells, side="right")))

        begin += count
        offsets.append(begin)
    return np.asarray(offsets, np.int64)


def _costs(cost: CostConfig | None, longest: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the predicted cost of each micro-batch, float64 [M]; all 1 where none is predicted.

    Args:
        cost: what a micro-batch costs.
        longest: padded frames of a micro-batch that ends here, int64 [n].
        offsets: see `EpochPlan`.
    """
    if cost is None:
        return np.ones(len(offsets) - 1)
    each = utterance_costs(cost, longest[offsets[1:] - 1])
    return cost.micro_batch + np.diff(offsets) * each


def _shuffle(
    order: np.ndarray,
    offsets: np.ndarray,
    costs: np.ndarray,
    rng: np.random.Generator,
    group: int,
    left_out: np.ndarray,
) -> EpochPlan:
    """Shuffle the micro-batches, and fill the last global step with the epoch's first ones."""
    batches = rng.permutation(len(offsets) - 1)
    fill = -len(batches) % group
    batches = np.concatenate([batches, np.resize(batches, fill)])

    # gather[i]: where the shuffled order's entry i stands in `order`
    sizes = np.diff(offsets)[batches]
    ends = np.cumsum(sizes)
    gather = np.repeat(offsets[batches] - (ends - sizes), sizes) + np.arange(ends[-1])

    begins = np.arange(0, len(batches) + 1, group)
    return EpochPlan(
        order[gather], np.concatenate([[0], ends]), begins, fill, left_out, costs[batches]
    )
