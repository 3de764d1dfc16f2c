"""The plan of a run whose settings change between two starts; the order stays a pure function.

A position (epoch, step of the epoch) means something under one plan only. So a run keeps the
changes that were made to what its plan follows from. In the epoch of a change the steps that were
done stay as they were, and what the epoch has not used yet is planned again: every utterance is
still used once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.plan.buckets import plan_buckets
from data.plan.epoch_plan import EpochPlan, Position, plan_epoch
from data.settings.plan import CostConfig, PadTo, PlanConfig


@dataclass(frozen=True)
class Cut:
    """All that the plan of an epoch follows from, beside the manifest.

    Attributes:
        seed: seed of the run.
        micro_batches_per_step: G.
        segment_frames: shorter utterances are left out.
        add_blank: whether a blank stands between phones.
        plan: mode and budgets of the micro-batches.
        block: utterances that stay together as they lie in the shards (data.plan.blocks); None: as
            the manifest has it, which only `data.stream.spec.schedule_of` knows.
        generations: digest of which preparation wrote which row, if utterances stay together with
            those of their own (data.plan.blocks); None: with any. Open where `block` is.
    """

    seed: int
    micro_batches_per_step: int
    segment_frames: int
    add_blank: bool
    plan: PlanConfig
    block: int | None = None
    generations: str | None = None

    def __post_init__(self) -> None:
        """Leave nothing open: cuts that give the same order are equal, and are recorded so."""
        object.__setattr__(self, "plan", self.plan.settled())

    def epoch_plan(
        self,
        rows: np.ndarray,
        frames: np.ndarray,
        phones: np.ndarray,
        epoch: int,
        begin: int = 0,
        generations: np.ndarray | None = None,
    ) -> EpochPlan:
        """Return the plan of these utterances from step `begin` of an epoch on.

        Args:
            rows: what identifies an utterance, int [n].
            frames: spectrogram frames of each, int [n].
            phones: phones of each without blanks, int [n].
            epoch: number of the epoch, from 0.
            begin: step of the epoch that these are to follow on.
            generations: number of the preparation that wrote each, int [n]; None: all of one.

        Raises:
            ValueError: nothing is left to train on.
        """
        plan = self.plan
        if plan.mode == "buckets":
            assert plan.max_utterances is not None
            return plan_buckets(
                rows,
                frames,
                seed=self.seed,
                epoch=epoch,
                micro_batches_per_step=self.micro_batches_per_step,
                batch_size=plan.max_utterances,
                boundaries=plan.bucket_boundaries,
                begin=begin,
            )
        return plan_epoch(
            rows,
            frames,
            2 * phones + 1 if self.add_blank else phones,
            seed=self.seed,
            epoch=epoch,
            micro_batches_per_step=self.micro_batches_per_step,
            max_frames=plan.max_frames,
            max_utterances=plan.max_utterances,
            max_cells=plan.max_cells,
            cost=plan.cost if plan.mode == "cost" else None,
            min_frames=self.segment_frames,
            pad_to=plan.pad_to,
            begin=begin,
            block=self.block or 1,
            generations=generations if self.generations else None,
        )


@dataclass(frozen=True)
class Change:
    """From this step of this epoch until the next change, epochs are cut like this."""

    epoch: int
    epoch_step: int
    cut: Cut


History = tuple[Change, ...]  # ascending; the first is of epoch 0, step 0


def begun(cut: Cut) -> History:
    """Return the history of a run that begins with this cut."""
    return (Change(0, 0, cut),)


def changed(history: History, position: Position, cut: Cut) -> History:
    """Return the history of a run that continues at a position with this cut.

    Utterances stay together as they did when the run began, wherever they lie now.

    Args:
        history: changes so far; empty where older code, which knew of no blocks, recorded none.
        position: where it continues.
        cut: what its epochs are cut by from there on.
    """
    history = history or begun(replace(cut, block=cut.block and 1, generations=None))
    before = history[-1].cut
    cut = replace(cut, block=before.block, generations=before.generations)
    if before == cut:
        return history
    here = (position.epoch, position.epoch_step)
    earlier = (change for change in history if (change.epoch, change.epoch_step) < here)
    return (*earlier, Change(*here, cut))


def plan_through(
    history: History,
    rows: np.ndarray,
    frames: np.ndarray,
    phones: np.ndarray,
    epoch: int,
    generations: np.ndarray | None = None,
) -> EpochPlan:
    """Return the plan of an epoch, through all changes.

    Args:
        history: changes of the run's plan.
        rows: what identifies an utterance, int [n].
        frames: spectrogram frames of each, int [n].
        phones: phones of each without blanks, int [n].
        epoch: number of the epoch, from 0.
        generations: number of the preparation that wrote each, int [n]; None: all of one.

    Raises:
        ValueError: nothing is left to train on.
    """
    # a manifest holds them as int32, and products of them are larger
    frames, phones = frames.astype(np.int64, copy=False), phones.astype(np.int64, copy=False)
    before = [change for change in history if (change.epoch, change.epoch_step) <= (epoch, 0)]
    plan = before[-1].cut.epoch_plan(rows, frames, phones, epoch, 0, generations)
    for change in history:
        if change.epoch != epoch or change.epoch_step == 0:
            continue
        done, ahead = plan.parted(change.epoch_step)
        left = ~np.isin(rows, done)
        # buckets repeat utterances, and here nothing else was to come
        if np.isin(ahead, done).all():
            left = np.isin(rows, ahead)
        rest = change.cut.epoch_plan(
            rows[left],
            frames[left],
            phones[left],
            epoch,
            change.epoch_step,
            None if generations is None else generations[left],
        )
        plan = plan.then(change.epoch_step, rest)
    return plan


def change_of(raw: Mapping[str, Any]) -> Change:
    """Return the Change that `dataclasses.asdict` and JSON made `raw` of."""
    cut = raw["cut"]
    plan = dict(cut["plan"])
    plan["bucket_boundaries"] = tuple(plan["bucket_boundaries"])
    # a run of older code was not padded, and predicted no costs
    plan["pad_to"] = PadTo(**plan.get("pad_to", {"frames": 1, "tokens": 1}))
    plan["cost"] = CostConfig(**plan.get("cost", {}))
    # nor did it know of blocks, or of generations
    recorded = {"block": 1} | cut | {"plan": PlanConfig(**plan)}
    return Change(raw["epoch"], raw["epoch_step"], Cut(**recorded))


def with_blocks(history: History, block: int, generations: str | None = None) -> History:
    """Return a history whose cuts leave no block open.

    Args:
        history: changes of a run's plan.
        block: what `Cut.block` is where it is open.
        generations: what `Cut.generations` is there.
    """
    return tuple(
        change
        if change.cut.block
        else replace(change, cut=replace(change.cut, block=block, generations=generations))
        for change in history
    )
