"""The reference trainer's bucket sampler, and its batches as an epoch plan (`data.plan.mode`)."""

from collections.abc import Sequence

import numpy as np

from data.plan.epoch_plan import EpochPlan, entropy


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
    """Cut an epoch by the reference's buckets: of fixed size, lengths outside them left out.

    A step has the batches that the reference's G processes have at a time, in the order of their
    ranks: all of one bucket. The shuffle follows from the epoch alone, as there, unless it is of
    what an epoch has left at `begin`, which the reference never plans.

    Arguments as for `plan_epoch` and `bucket_batches`.

    Raises:
        ValueError: no utterance lies within the boundaries.
    """
    G = micro_batches_per_step
    shuffle = epoch
    if begin:
        shuffle = int(np.random.SeedSequence(entropy(seed, epoch, begin)).generate_state(1)[0])
    # G ranks draw every G-th utterance of what is G times as large a batch of one rank
    together = bucket_batches(frames, batch_size * G, boundaries, epoch=shuffle)
    batches = [batch[rank::G] for batch in together for rank in range(G)]
    if not batches:
        raise ValueError(
            f"no utterance lies within data.plan.bucket_boundaries {tuple(boundaries)}"
        )
    used = np.unique(np.concatenate(batches))
    left_out = rows[np.setdiff1d(np.arange(len(rows)), used)]

    offsets = np.concatenate([[0], np.cumsum([len(b) for b in batches])])
    begins = np.arange(0, len(batches) + 1, G)
    costs = np.ones(len(batches))
    return EpochPlan(rows[np.concatenate(batches)], offsets, begins, 0, left_out, costs)


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
    """Return the batches of the reference trainer's bucket sampler, to the letter.

    A bucket holds the lengths in (boundary, next boundary]; others are left out. Each is shuffled
    by the epoch alone, filled with repeats up to a multiple of the global batch, and dealt to the
    replicas; then the batches are shuffled.

    Args:
        lengths: frames of each utterance.
        batch_size: utterances per replica and batch.
        boundaries: lengths at which buckets begin and end, ascending.
        num_replicas: number of workers.
        rank: worker whose batches are wanted.
        epoch: seeds the shuffle.
        shuffle: whether to shuffle; otherwise the order is that of the data set.

    Returns:
        Batches of indices into `lengths`.
    """
    lengths = np.asarray(lengths)
    bucket = np.searchsorted(np.asarray(boundaries), lengths, side="left") - 1
    bucket[lengths > boundaries[-1]] = -1
    members = [np.flatnonzero(bucket == number) for number in range(len(boundaries) - 1)]
    members = [own for own in members if len(own)]

    # one generator for all shuffles, drawn from in this order
    randperm = _TorchRandperm(epoch)
    orders = [randperm(len(own)) if shuffle else np.arange(len(own)) for own in members]

    total = batch_size * num_replicas
    batches: list[list[int]] = []
    for own, order in zip(members, orders, strict=True):
        filled = np.resize(order, len(order) + -len(order) % total)
        dealt = filled[rank::num_replicas].reshape(-1, batch_size)
        batches += [own[part].tolist() for part in dealt]
    return [batches[i] for i in randperm(len(batches))] if shuffle else batches


class _TorchRandperm:
    """torch.randperm of a CPU generator seeded with `seed`, in numpy.

    It is MT19937 and a Fisher-Yates shuffle.
    """

    def __init__(self, seed: int):
        self.bits = np.random.RandomState(seed)  # seeds as torch does

    def __call__(self, n: int) -> np.ndarray:
        order = np.arange(n)
        draws = self.bits.randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32).tolist()
        for i, draw in enumerate(draws):
            j = i + draw % (n - i)
            order[i], order[j] = order[j], order[i]
        return order
