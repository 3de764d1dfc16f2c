"""What a run's validations say: whether it still gets better, and whether it learns its training data by heart."""

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
        score: train.checkpoint's cost, of which smaller is better; None where there was none.
        mel: mel L1 of the validation set.
        train_mel: mel L1 of as many training utterances, measured alike.
        ranks_by: what `score` is of: train.checkpoint.ranks_by at that time; None, of older code:
            what it is now.
    """

    step: int
    score: float | None
    mel: float | None
    train_mel: float | None
    ranks_by: str | None = None


def comparable(validations: Sequence[Validation], ranks_by: str) -> list[Validation]:
    """Those whose scores are of what ranks them now: the user may have changed that between two starts of the run."""
    return [v for v in validations if v.ranks_by in (ranks_by, None)]


def best_of(validations: Sequence[Validation], ranks_by: str) -> Validation | None:
    """The first one with the best score."""
    scored = [v for v in comparable(validations, ranks_by) if v.score is not None]
    return min(scored, key=lambda v: v.score or 0.0) if scored else None


def gives_up(validations: Sequence[Validation], patience: int, ranks_by: str) -> bool:
    """Whether the last `patience` validations have not improved on the best score; never with a patience of 0."""
    best, own = best_of(validations, ranks_by), comparable(validations, ranks_by)
    return patience > 0 and best is not None and sum(v.step > best.step for v in own) >= patience


def overfits(validations: Sequence[Validation]) -> bool:
    """Whether over the last WINDOW validations the training set's mel loss falls while the validation set's rises.

    Trends are the slopes of least-squares lines.
    """
    last = [v for v in validations[-WINDOW:] if v.mel is not None and v.train_mel is not None]
    if len(last) < WINDOW:
        return False
    steps = [v.step for v in last]
    rising, falling = (
        np.polyfit(steps, [getattr(v, name) for v in last], 1)[0] for name in ("mel", "train_mel")
    )
    return bool(rising > 0 > falling)
