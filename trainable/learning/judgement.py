"""What a run's validations say: whether it still improves, and whether it overfits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Spans = tuple[tuple[int, int], ...]  # (first, last) global steps, ascending

WINDOW = 4  # validations that a trend is read from


@dataclass(frozen=True)
class Validation:
    """What is remembered of a validation.

    Attributes:
        step: global steps done.
        score: train.checkpoint's cost, of which smaller is better; None if there was none.
        mel: mel L1 of the validation set.
        train_mel: mel L1 of as many training utterances, measured in the same way.
        ranks_by: what `score` measures: train.checkpoint.ranks_by at that time. None, written by
            older code, stands for its present value.
    """

    step: int
    score: float | None
    mel: float | None
    train_mel: float | None
    ranks_by: str | None = None


def comparable(validations: Sequence[Validation], ranks_by: str) -> list[Validation]:
    """Return the validations whose scores measure what ranks them now.

    The user may have changed that between two starts of the run.
    """
    return [v for v in validations if v.ranks_by in (ranks_by, None)]


def best_of(validations: Sequence[Validation], ranks_by: str) -> Validation | None:
    """Return the first validation with the best score, or None if none has a score."""
    scored = [v for v in comparable(validations, ranks_by) if v.score is not None]
    return min(scored, key=lambda v: v.score or 0.0) if scored else None


def gives_up(validations: Sequence[Validation], patience: int, ranks_by: str) -> bool:
    """Return whether the last `patience` validations did not improve on the best score.

    Never with a patience of 0.
    """
    best = best_of(validations, ranks_by)
    if best is None or patience == 0:
        return False
    later = [v for v in comparable(validations, ranks_by) if v.step > best.step]
    return len(later) >= patience


def overfits(validations: Sequence[Validation]) -> bool:
    """Return whether the training set's mel loss falls while the validation set's rises.

    Trends are the slopes of least-squares lines over the last WINDOW validations.
    """
    last = [v for v in validations[-WINDOW:] if v.mel is not None and v.train_mel is not None]
    if len(last) < WINDOW:
        return False
    steps = [v.step for v in last]
    rising = _slope(steps, [v.mel for v in last])
    falling = _slope(steps, [v.train_mel for v in last])
    return rising > 0 > falling


def _slope(x: Sequence[int], y: Sequence[float | None]) -> float:
    """Return the slope of the least-squares line through the points (x, y)."""
    return float(np.polyfit(x, np.array(y, dtype=float), 1)[0])
