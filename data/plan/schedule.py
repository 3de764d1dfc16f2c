"""The order of a whole run: every epoch's plan, the position after a step, and who gets what."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.plan.epoch_plan import EpochPlan, Position
from data.plan.history import Cut, History, plan_through

PLANS_KEPT = 2  # a plan of 10 million utterances takes 45 MB


@dataclass(frozen=True, eq=False)
class Schedule:
    """Which utterances a run trains on at which step: a pure function of what it is made of.

    Attributes:
        history: changes of what epochs are cut by, the present cut the last one.
        rows: what identifies an utterance of the training split, int [n].
        frames: spectrogram frames of each, int [n].
        phones: phones of each without blanks, int [n].
        generations: number of the preparation that wrote each, int [n]; None: all of one.
    """

    history: History
    rows: np.ndarray
    frames: np.ndarray
    phones: np.ndarray
    generations: np.ndarray | None = None

    @property
    def cut(self) -> Cut:
        """What epochs are cut by from now on."""
        return self.history[-1].cut

    def plan(self, epoch: int) -> EpochPlan:
        """Return the plan of an epoch, counted from 0; the last few are kept.

        Raises:
            ValueError: nothing is left to train on.
        """
        return self._plan(epoch)

    def after(self, position: Position) -> Position:
        """Return the position one global step on."""
        if position.epoch_step + 1 < self.plan(position.epoch).steps:
            return Position(position.step + 1, position.epoch, position.epoch_step + 1)
        return Position(position.step + 1, position.epoch + 1, 0)

    def utterances(self, position: Position) -> int:
        """Return the number of utterances in the step at a position."""
        return self.plan(position.epoch).utterances(position.epoch_step)

    def shares(self, position: Position, world_size: int) -> list[list[int]]:
        """Return the numbers of the micro-batches that each of W workers takes of a step.

        They are ascending, at least one and at most ceil(G / W); the first worker has number 0.

        Args:
            position: position of the step.
            world_size: W, at most G.
        """
        return self.plan(position.epoch).shares(position.epoch_step, world_size)

    def check(self, position: Position) -> None:
        """Refuse settings under which there is nothing to train on at a position.

        Raises:
            ValueError: no utterance is long enough, or lies within the buckets.
        """
        self.plan(position.epoch)

    @functools.cached_property
    def _plan(self) -> Callable[[int], EpochPlan]:
        # per schedule, and gone with it: a cache of the method itself would keep all schedules
        return functools.lru_cache(maxsize=PLANS_KEPT)(
            functools.partial(
                plan_through,
                self.history,
                self.rows,
                self.frames,
                self.phones,
                generations=self.generations,
            )
        )
