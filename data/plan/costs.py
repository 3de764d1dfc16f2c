"""What micro-batches are predicted to cost, and how workers share those of a global step."""

import heapq
from collections.abc import Sequence

import numpy as np

from data.settings.plan import CostConfig


def utterance_costs(cost: CostConfig, frames: np.ndarray) -> np.ndarray:
    """Return what an utterance costs that is padded to so many frames: float64 [n]."""
    return cost.utterance + frames * (cost.frame + frames * cost.cell)


def fitting(cost: CostConfig, frames: np.ndarray) -> np.ndarray:
    """Return how many utterances of so many padded frames the budget has room for, int64 [n]."""
    room = cost.budget - cost.micro_batch
    return np.floor(room / utterance_costs(cost, frames)).astype(np.int64)


def shares(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Share the micro-batches of a global step by longest processing time first.

    The costliest that is left goes to the worker with the least cost so far (Graham, "Bounds on
    multiprocessing timing anomalies", 1969), of those that have fewer than ceil(G / W). Equal costs
    are dealt in turn, micro-batch j to worker j % W.

    Args:
        costs: predicted cost of each micro-batch, above 0: [G].
        workers: W, at most G.

    Returns:
        Per worker the numbers of its micro-batches, ascending; the first worker has number 0.
    """
    assert workers <= len(costs)
    most = -(-len(costs) // workers)
    dealt: list[list[int]] = [[] for _ in range(workers)]
    open_workers = [(0.0, worker) for worker in range(workers)]
    for number in sorted(range(len(costs)), key=lambda j: (-costs[j], j)):
        load, worker = heapq.heappop(open_workers)
        dealt[worker].append(number)
        if len(dealt[worker]) < most:
            heapq.heappush(open_workers, (load + costs[number], worker))
    return sorted(sorted(own) for own in dealt)
