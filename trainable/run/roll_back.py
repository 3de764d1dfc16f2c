"""Back to a good checkpoint when numbers blow up, and on behind the data that were there.

Neither when a bad step was looked at nor what was saved because a node went has a part in it: the
checkpoint is the last one on schedule before the first bad step, so that the result is the same
whatever happens to the cluster.
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
    """The last good checkpoint on schedule before a step; None where there is none.

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
    advance: Callable[[Position], Position],
    utterances: Callable[[Position], int],
) -> None:
    """Restore a checkpoint and pass over the data up to a bad step; says so.

    Args:
        state: restored in place; it stands behind the bad step afterwards.
        checkpoint: folder.
        error: what is wrong with the step.
        advance: the position one step on.
        utterances: how many the step at a position has.

    Raises:
        NotFiniteError: there were too many roll-backs in succession.
    """
    before, limit = state.passed_over, state.train.not_finite.max_roll_backs
    restored = load_checkpoint(checkpoint, state).position.step
    state.passed_over = pass_over(before, restored, error.step)
    (first, last), count, passed = state.passed_over[-1], in_succession(state.passed_over), 0
    if count > limit:
        raise NotFiniteError(
            f"{error}. {limit} roll-backs in succession to step {restored} have not helped, more are not allowed by "
            "train.not_finite.max_roll_backs",
            error.step,
        )
    while state.position.step < last:
        passed += utterances(state.position) if state.position.step + 1 >= first else 0
        state.position = advance(state.position)
    log.warning(
        "%s. Rolls back to the checkpoint of step %d, %d of %d in succession",
        error,
        restored,
        count,
        limit,
    )
    log.warning(
        "passes over steps %d to %d (%d utterances), goes on at step %d",
        first,
        last,
        passed,
        last + 1,
    )


def pass_over(before: Spans, restored: int, bad: int) -> Spans:
    """Steps whose data a run has passed over, after one more roll-back.

    Args:
        before: those of the roll-backs before.
        restored: step of the checkpoint that is restored.
        bad: the bad step, behind which the run goes on.
    """
    return (*before, (max([restored, *(last for _, last in before)]) + 1, bad))


def in_succession(passed_over: Spans) -> int:
    """How many of the last roll-backs had no good scheduled checkpoint in between: their steps follow each other."""
    count = min(1, len(passed_over))
    for (_, last), (first, _) in reversed(list(pairwise(passed_over))):
        if first > last + 1:
            break
        count += 1
    return count
