"""What a run's validations say: whether it still gets better, and whether it learns its training data by heart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 4  # validations that a trend is read from


@dataclass(frozen=True)
class Validation:
    """What is remembered of a validation.

    Attributes:
        step: global steps done.
        score: train.checkpoint's cost, of which smaller is better; None where there was none.
        mel: mel L1 of the validation set.
        train_mel: mel L1 of as many training utterances, measured alike.
    """

    step: int
    score: float | None
    mel: float | None
    train_mel: float | None


def best_of(validations: Sequence[Validation]) -> Validation | None:
    """The first one with the best score."""
    scored = [v for v in validations if v.score is not None]
    return min(scored, key=lambda v: v.score or 0.0) if scored else None


def gives_up(validations: Sequence[Validation], patience: int) -> bool:
    """Whether the last `patience` validations have not improved on the best score; never with a patience of 0."""
    best = best_of(validations)
    return patience > 0 and best is not None and sum(v.step > best.step for v in validations) >= patience


def overfits(validations: Sequence[Validation]) -> bool:
    """Whether over the last WINDOW validations the training set's mel loss falls while the validation set's rises.

    Trends are the slopes of least-squares lines.
    """
    last = [v for v in validations[-WINDOW:] if v.mel is not None and v.train_mel is not None]
    if len(last) < WINDOW:
        return False
    steps = [v.step for v in last]
    rising, falling = (np.polyfit(steps, [getattr(v, name) for v in last], 1)[0] for name in ("mel", "train_mel"))
    return bool(rising > 0 > falling)
