"""The epoch plan: which utterances train together, in which order, as a pure function.

`plan_epoch(lengths, seed, epoch, G)` returns an ordered list of micro-batches of utterances of like
length. A global step is G consecutive micro-batches, whatever the number of workers, so that a
`Position` is the whole state of the data: no iterator, sampler or random generator has to be saved.
Numpy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# utterances whose lengths differ by less than about this share are batched by their phones instead
STRIP = 0.02


@dataclass(frozen=True)
class Position:
    """Where a run stands: `step` global steps are done; the next is `epoch_step` of `epoch` (all counted from 0)."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0


@dataclass(frozen=True)
class EpochPlan:
    """The micro-batches of one epoch, in order.

    Attributes:
        order: row numbers, int64 [n], micro-batch after micro-batch.
        offsets: int64 [M + 1]; micro-batch m holds order[offsets[m]:offsets[m + 1]].
        begins: int64 [S + 1]; step s has micro-batches begins[s] to begins[s + 1] - 1, G of them.
        fill: micro-batches at the end that repeat earlier ones of this epoch, to fill up its last
            step.
        left_out: row numbers that this epoch does not use, int64.
    """

    order: np.ndarray
    offsets: np.ndarray
    begins: np.ndarray
    fill: int
    left_out: np.ndarray

    @property
    def steps(self) -> int:
        """Global steps of the epoch."""
        return len(self.begins) - 1

    def micro_batch(self, step: int, slot: int) -> np.ndarray:
        """Row numbers, int64 [b], of micro-batch `slot` (0 .. G - 1) of the epoch's global step `step`."""
        m = self.begins[step] + slot
        assert m < self.begins[step + 1]
        return self.order[self.offsets[m] : self.offsets[m + 1]]

    def utterances(self, step: int) -> int:
        """How many utterances the epoch's global step `step` has."""
        return int(self.offsets[self.begins[step + 1]] - self.offsets[self.begins[step]])

    def filled_rows(self) -> np.ndarray:
        """Row numbers that the fill repeats, int64."""
        first = len(self.offsets) - 1 - self.fill
        return self.order[self.offsets[first] :]

    def parted(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers, int64, of the steps before `step`, and of the others."""
        at = self.offsets[self.begins[step]]
        return self.order[:at], self.order[at:]

    def then(self, step: int, rest: "EpochPlan") -> "EpochPlan":
        """The steps before `step`, and behind them another plan, of what they have not used."""
        m = self.begins[step]
        return EpochPlan(
            np.concatenate([self.order[: self.offsets[m]], rest.order]),
            np.concatenate([self.offsets[:m], self.offsets[m] + rest.offsets]),
            np.concatenate([self.begins[:step], m + rest.begins]),
            rest.fill,
            rest.left_out,
        )


def plan_epoch(
    rows: np.ndarray,
    frames: np.ndarray,
    phones: np.ndarray,
    *,
    seed: int,
    epoch: int,
    micro_batches_per_step: int,
    max_frames: int,
    max_utterances: int,
    max_cells: int | None = None,
    min_frames: int = 0,
    begin: int = 0,
) -> EpochPlan:
    """Cut an epoch into micro-batches of like length under a budget of predicted cost.

    Time and memory of most parts grow with the padded frames, those of the alignment with padded
    frames x phones.

    Utterances are sorted into strips of nearly equal frames, within a strip by phones (so that both
    paddings stay small), and cut. Where the strips begin, the order of equals and the order of the
    micro-batches come from (seed, epoch), so that every epoch has other batches.

    Args:
        rows: what identifies an utterance, int64 [n].
        frames: spectrogram frames of each, int [n].
        phones: phones of each, int [n].
        seed: of the run.
        epoch: counted from 0.
        micro_batches_per_step: G.
        max_frames: budget of a micro-batch, batch size x longest utterance; a longer utterance is
            alone in its own.
        max_utterances: no micro-batch holds more.
        max_cells: budget of batch size x longest utterance x most phones; None for no limit.
        min_frames: shorter utterances are left out.
        begin: step of the epoch that these are to follow on, see data.plan.history.

    Raises:
        ValueError: nothing is left to train on.
    """
    assert len(rows) == len(frames) == len(phones)
    usable = frames >= min_frames
    left_out = rows[~usable]
    rows, frames, phones = rows[usable], frames[usable], phones[usable]
    if len(rows) == 0:
        raise ValueError(
            f"no utterance of the training split has {min_frames} frames or more: lower train.segment_size or add data"
        )
    rng = np.random.default_rng(_entropy(seed, epoch, begin))
    strip = np.floor(np.log(np.maximum(frames, 1)) / STRIP + rng.random()).astype(np.int64)
    # snake: the last of a strip and the first of the next have like text
    descending = (strip % 2).astype(bool)
    jitter = phones * rng.uniform(0.98, 1.02, len(rows))
    by_length = np.lexsort((np.where(descending, -jitter, jitter), strip))
    offsets = _cut(frames[by_length], phones[by_length], max_frames, max_utterances, max_cells)
    return _shuffle(rows[by_length], offsets, rng, micro_batches_per_step, left_out)


def _entropy(seed: int, epoch: int, begin: int) -> list[int]:
    return [seed, epoch, begin] if begin else [seed, epoch]


def _cut(
    frames: np.ndarray,
    phones: np.ndarray,
    max_frames: int,
    max_utterances: int,
    max_cells: int | None,
) -> np.ndarray:
    """Greedy cut of nearly ascending lengths [n]: offsets [M + 1], within the budgets but for one too long alone."""
    # an upper bound of every batch's longest, and ascending
    ceiling = np.maximum.accumulate(frames)
    offsets, begin, n = [0], 0, len(frames)
    while begin < n:
        count = min(max(1, max_frames // int(ceiling[begin])), max_utterances, n - begin)
        # the longest grows with the count: shrink until the batch keeps the budget
        while count > 1 and count * int(ceiling[begin + count - 1]) > max_frames:
            count = max(1, min(count - 1, max_frames // int(ceiling[begin + count - 1])))
        if max_cells is not None:
            cells = (
                np.maximum.accumulate(phones[begin : begin + count])
                * ceiling[begin : begin + count]
            )
            count = max(
                1, int(np.searchsorted(cells * np.arange(1, count + 1), max_cells, side="right"))
            )
        begin += count
        offsets.append(begin)
    return np.asarray(offsets, np.int64)


def _shuffle(
    order: np.ndarray,
    offsets: np.ndarray,
    rng: np.random.Generator,
    group: int,
    left_out: np.ndarray,
) -> EpochPlan:
    """Shuffle the micro-batches, and fill the last global step with the epoch's first ones."""
    batches = rng.permutation(len(offsets) - 1)
    fill = -len(batches) % group
    batches = np.concatenate([batches, np.resize(batches, fill)])
    sizes = np.diff(offsets)[batches]
    ends = np.cumsum(sizes)
    gather = np.repeat(offsets[batches] - (ends - sizes), sizes) + np.arange(ends[-1])
    begins = np.arange(0, len(batches) + 1, group)
    return EpochPlan(order[gather], np.concatenate([[0], ends]), begins, fill, left_out)


def bucket_batches(
    lengths: Sequence[int] | np.ndarray,
    batch_size: int,
    boundaries: Sequence[int],
    *,
    num_replicas: int = 1,
    rank: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
) -> list[list[int]]:
    """Batches of the reference trainer's bucket sampler, to the letter.

    A bucket holds the lengths in (boundary, next boundary]; others are left out. Each is shuffled
    by the epoch alone, filled with repeats up to a multiple of the global batch, and dealt to the
    replicas; then the batches are shuffled.

    Args:
        lengths: frames of each utterance.
        batch_size: utterances a replica and batch.
        boundaries: ascending.
        num_replicas: workers.
        rank: of these, whose batches are wanted.
        epoch: seeds the shuffle.
        shuffle: else in the order of the data set.

    Returns:
        Batches of indices into `lengths`.
    """
    lengths = np.asarray(lengths)
    which = np.searchsorted(np.asarray(boundaries), lengths, side="left") - 1
    which[lengths > boundaries[-1]] = -1
    random = _TorchRandperm(epoch)
    total = batch_size * num_replicas
    batches: list[list[int]] = []
    buckets = [
        members for b in range(len(boundaries) - 1) if len(members := np.flatnonzero(which == b))
    ]
    orders = [random(len(members)) if shuffle else np.arange(len(members)) for members in buckets]
    for members, order in zip(buckets, orders, strict=True):
        filled = np.resize(order, len(order) + -len(order) % total)[rank::num_replicas]
        batches += [members[part].tolist() for part in filled.reshape(-1, batch_size)]
    return [batches[i] for i in random(len(batches))] if shuffle else batches


class _TorchRandperm:
    """torch.randperm of a CPU generator seeded with `seed`, in numpy: MT19937 and a Fisher-Yates shuffle."""

    def __init__(self, seed: int):
        self.bits = np.random.RandomState(seed)  # seeds as torch does

    def __call__(self, n: int) -> np.ndarray:
        order = np.arange(n)
        draws = self.bits.randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32).tolist()
        for i, draw in enumerate(draws):
            j = i + draw % (n - i)
            order[i], order[j] = order[j], order[i]
        return order


def plan_buckets(
    rows: np.ndarray,
    frames: np.ndarray,
    *,
    seed: int,
    epoch: int,
    micro_batches_per_step: int,
    batch_size: int,
    boundaries: Sequence[int],
    begin: int = 0,
) -> EpochPlan:
    """The reference's buckets as an epoch plan: fixed batch size, its boundaries, lengths outside them left out.

    Arguments as for `plan_epoch` and `bucket_batches`; `seed` is unused by the reference, here it
    varies the shuffle.

    Raises:
        ValueError: no utterance lies within the boundaries.
    """
    shuffle = np.random.SeedSequence(_entropy(seed, epoch, begin)).generate_state(1)[0]
    batches = bucket_batches(frames, batch_size, boundaries, epoch=int(shuffle))
    if not batches:
        raise ValueError(
            f"no utterance lies within data.plan.bucket_boundaries {tuple(boundaries)}"
        )
    used = np.unique(np.concatenate(batches))
    left_out = rows[np.setdiff1d(np.arange(len(rows)), used)]
    fill = -len(batches) % micro_batches_per_step
    batches += [batches[i % len(batches)] for i in range(fill)]
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in batches])])
    begins = np.arange(0, len(batches) + 1, micro_batches_per_step)
    return EpochPlan(rows[np.concatenate(batches)], offsets, begins, fill, left_out)
