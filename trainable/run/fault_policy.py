"""What becomes of a step whose numbers blow up: `train.not_finite`."""

import logging
import math
from collections.abc import Callable, Mapping

from torch import Tensor

from trainable.config import NotFiniteConfig
from trainable.learning.not_finite import OVERFLOWS_IN_A_ROW, NotFiniteError, describe, faults

log = logging.getLogger("bert_vits2_ray")


class FaultPolicy:
    """Looks at the steps' lines in their order; the answers are the same on all ranks."""

    def __init__(self, cfg: NotFiniteConfig, loss_scaling: bool):
        """Begin without faults.

        Args:
            cfg: what happens when numbers blow up.
            loss_scaling: whether a scaler skips updates, as under fp16.
        """
        self.cfg = cfg
        self.loss_scaling = loss_scaling
        self.in_a_row = 0  # steps with a left-out update, up to the last one seen
        self.overflows: dict[str, int] = {}  # gradient norm -> steps in a row: it is not finite

    def error_of(
        self, line: Mapping[str, float], broken: Tensor, members: Callable[[int], str]
    ) -> NotFiniteError | None:
        """Return the error that ends the steps at this one.

        None if all is well, or if the step's update was left out and that is allowed.

        Args:
            line: tag -> value, with `step`.
            broken: whether each micro-batch has a loss that is not finite: bool [G]. It is read
                from the device only if there is a fault.
            members: number of a micro-batch -> its utterances.
        """
        bad = faults(line, self.cfg.max_grad_norm, self._tolerated(line))
        if not bad:
            self.in_a_row = 0
            return None

        self.in_a_row += 1
        utterances = {slot: members(slot) for slot in range(len(broken))}
        at_fault = [slot for slot, is_broken in enumerate(broken.tolist()) if is_broken]
        what = describe(line, bad, utterances, at_fault)
        if self.loss_scaling and max(self.overflows.values(), default=0) > OVERFLOWS_IN_A_ROW:
            what += (
                f". This happened in more than {OVERFLOWS_IN_A_ROW} steps in a row: "
                "no loss scale helps, try bf16"
            )

        if self.cfg.policy == "skip":
            if self.in_a_row <= self.cfg.max_in_a_row:
                log.warning("%s. The update of %s is left out", what, _left_out(line))
                return None
            what += (
                f". {self.in_a_row} such steps in a row are more than "
                "train.not_finite.max_in_a_row allows"
            )
        elif self.cfg.policy == "stop":
            what += ". The last good state is the newest checkpoint; see train.not_finite"
        return NotFiniteError(what, int(line["step"]))

    def roll_back(self) -> None:
        """Forget the overflows: the checkpoint that is restored has a loss scale of its own."""
        self.overflows.clear()

    def _tolerated(self, line: Mapping[str, float]) -> list[str]:
        """Count overflows in a row; return the norms that may overflow while a scale is sought."""
        for tag in filter(lambda tag: tag.startswith("grad_norm_"), line):
            self.overflows[tag] = 0 if math.isfinite(line[tag]) else self.overflows.get(tag, 0) + 1
        if not self.loss_scaling:
            return []
        return [tag for tag, n in self.overflows.items() if n <= OVERFLOWS_IN_A_ROW]


def _left_out(line: Mapping[str, float]) -> str:
    """Name the networks whose update a step has left out."""
    skipped = [tag for tag, v in line.items() if tag.startswith("skipped_") and v]
    return ", ".join(tag.removeprefix("skipped_") for tag in skipped) or "no network"
