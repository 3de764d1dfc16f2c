"""The plan of a run whose settings change between two starts: the order stays a pure function, of the changes too.

A position (epoch, step of the epoch) means something under one plan only. So a run keeps the
changes that were made to what its plan follows from. In the epoch of a change the steps that were
done stay as they were, and what the epoch has not used yet is planned anew: every utterance is
still used once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.config import PlanConfig
from data.plan.epoch_plan import EpochPlan, Position, plan_buckets, plan_epoch


@dataclass(frozen=True)
class Cut:
    """All that the plan of an epoch follows from, beside the manifest.

    Attributes:
        seed: of the run.
        micro_batches_per_step: G.
        segment_frames: shorter utterances are left out.
        add_blank: a blank stands between phones.
        plan: the budget.
    """

    seed: int
    micro_batches_per_step: int
    segment_frames: int
    add_blank: bool
    plan: PlanConfig

    def of(
        self, rows: np.ndarray, frames: np.ndarray, phones: np.ndarray, epoch: int, begin: int = 0
    ) -> EpochPlan:
        """The plan of these rows, int64 [n], from step `begin` of an epoch on; frames and phones without blanks [n].

        Raises:
            ValueError: nothing is left to train on.
        """
        shared = {
            "epoch": epoch,
            "begin": begin,
            "micro_batches_per_step": self.micro_batches_per_step,
        }
        cut = self.plan
        if cut.mode == "buckets":
            return plan_buckets(
                rows,
                frames,
                seed=self.seed,
                batch_size=cut.max_utterances,
                boundaries=cut.bucket_boundaries,
                **shared,
            )
        return plan_epoch(
            rows,
            frames,
            2 * phones + 1 if self.add_blank else phones,
            seed=self.seed,
            max_frames=cut.max_frames,
            max_utterances=cut.max_utterances,
            max_cells=cut.max_cells,
            min_frames=self.segment_frames,
            **shared,
        )


@dataclass(frozen=True)
class Change:
    """From a step of an epoch on, until the next change, epochs are cut like this."""

    epoch: int
    epoch_step: int
    cut: Cut


History = tuple[Change, ...]  # ascending; the first is of epoch 0, step 0


def changed(history: History, position: Position, cut: Cut) -> History:
    """The history of a run that goes on at a position with this cut."""
    assert history
    if history[-1].cut == cut:
        return history
    here = (position.epoch, position.epoch_step)
    return (*(c for c in history if (c.epoch, c.epoch_step) < here), Change(*here, cut))


def plan_through(
    history: History, rows: np.ndarray, frames: np.ndarray, phones: np.ndarray, epoch: int
) -> EpochPlan:
    """The plan of an epoch, through all changes.

    Args:
        history: of the run.
        rows: what identifies an utterance, int64 [n].
        frames: spectrogram frames of each, int64 [n].
        phones: phones of each without blanks, int64 [n].
        epoch: counted from 0.

    Raises:
        ValueError: nothing is left to train on.
    """
    first = [change for change in history if (change.epoch, change.epoch_step) <= (epoch, 0)][-1]
    plan = first.cut.of(rows, frames, phones, epoch)
    for change in history:
        if change.epoch == epoch and change.epoch_step > 0:
            done, ahead = plan.parted(change.epoch_step)
            left = ~np.isin(rows, done)
            # buckets repeat utterances, and here nothing else was to come
            if np.isin(ahead, done).all():
                left = np.isin(rows, ahead)
            rest = change.cut.of(rows[left], frames[left], phones[left], epoch, change.epoch_step)
            plan = plan.then(change.epoch_step, rest)
    return plan


def change_of(raw: Mapping[str, Any]) -> Change:
    """A Change of what `dataclasses.asdict` and JSON made of it."""
    cut = raw["cut"]
    plan = PlanConfig(
        **cut["plan"] | {"bucket_boundaries": tuple(cut["plan"]["bucket_boundaries"])}
    )
    return Change(raw["epoch"], raw["epoch_step"], Cut(**cut | {"plan": plan}))
