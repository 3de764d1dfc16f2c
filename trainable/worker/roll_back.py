"""Roll-backs: to a good checkpoint when numbers blow up, then on behind the data that were there.

The checkpoint is the last scheduled one before the first bad step, so that the result is the same
whatever happens to the cluster. It depends neither on when the bad step was looked at, nor on what
was saved because a node was leaving.
"""

import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from data.plan.epoch_plan import Position
from trainable.learning.judgement import Spans
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.state import TrainState
from trainable.run.checkpoint import load_checkpoint
from trainable.run.storage import newest_good

log = logging.getLogger("bert_vits2_ray")


def scheduled_before(folder: str, step: int, every_steps: int) -> str | None:
    """Return the last good scheduled checkpoint before a step; None if there is none.

    Args:
        folder: folder or URI of the run.
        step: the bad step.
        every_steps: train.checkpoint.every_steps.
    """
    return newest_good(folder, lambda at: at % every_steps == 0 and at < step)


def roll_back(
    state: TrainState,
    checkpoint: Path,
    error: NotFiniteError,
    after: Callable[[Position], Position],
    utterances: Callable[[Position], int],
) -> None:
    """Restore a checkpoint and skip the data up to a bad step; log both.

    Args:
        state: restored in place; it stands behind the bad step afterwards.
        checkpoint: local folder of the checkpoint.
        error: what is wrong with the step.
        after: returns the position one step on.
        utterances: returns the number of utterances in the step at a position.

    Raises:
        NotFiniteError: there were too many roll-backs in a row.
    """
    before = state.passed_over
    limit = state.train.not_finite.max_roll_backs
    restored = load_checkpoint(checkpoint, state).position.step

    state.passed_over = pass_over(before, restored, error.step)
    count = in_succession(state.passed_over)
    if count > limit:
        raise NotFiniteError(
            f"{error}. {limit} roll-backs in a row to step {restored} have not helped, "
            "train.not_finite.max_roll_backs allows no more",
            error.step,
        )

    # the weights stay those of the checkpoint, the position moves on to behind the bad step
    first, last = state.passed_over[-1]
    skipped = 0
    while state.position.step < last:
        if state.position.step + 1 >= first:
            skipped += utterances(state.position)
        state.position = after(state.position)

    log.warning(
        "%s. Rolls back to the checkpoint of step %d (roll-back %d in a row, at most %d)",
        error,
        restored,
        count,
        limit,
    )
    log.warning(
        "skips steps %d to %d (%d utterances), continues at step %d",
        first,
        last,
        skipped,
        last + 1,
    )


def pass_over(before: Spans, restored: int, bad: int) -> Spans:
    """Return the steps whose data a run has passed over, after one more roll-back.

    Args:
        before: steps of the roll-backs before.
        restored: step of the checkpoint that is restored.
        bad: the bad step, behind which the run continues.
    """
    first = max([restored, *(last for _, last in before)]) + 1
    return (*before, (first, bad))


def in_succession(passed_over: Spans) -> int:
    """Return how many of the last roll-backs had no good scheduled checkpoint in between.

    The steps that these have passed over follow each other.
    """
    count = min(1, len(passed_over))
    for (_, last), (first, _) in reversed(list(pairwise(passed_over))):
        if first > last + 1:
            break
        count += 1
    return count
