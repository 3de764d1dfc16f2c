"""Numbers that blow up: what is wrong with a step, in words."""

import math
from collections.abc import Collection, Mapping, Sequence

from trainable.networks.registry import network, owner

NAMED = 4  # further losses of a network that a message names
# under fp16: from 2^16 the loss scale has then come down to 2^-14, where gradients are lost
OVERFLOWS_IN_A_ROW = 30


class NotFiniteError(FloatingPointError):
    """A loss or a gradient is not a finite number, or a gradient exploded.

    Attributes:
        step: the first global step where that happened.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def faults(
    line: Mapping[str, float], max_grad_norm: float | None, tolerated: Collection[str] = ()
) -> list[str]:
    """Return the tags of losses and gradient norms that are not finite, and of too large norms.

    Args:
        line: tag -> value.
        max_grad_norm: a larger norm is too large; None: no norm is.
        tolerated: gradient norms that need not be finite: under fp16, while the loss scale is being
            found, the scaler skips such updates.
    """
    limit = math.inf if max_grad_norm is None else max_grad_norm

    def is_bad(tag: str, value: float) -> bool:
        if tag.startswith("loss/"):
            return not math.isfinite(value)
        if not tag.startswith("grad_norm_"):
            return False
        return value > limit if math.isfinite(value) else tag not in tolerated

    bad = [tag for tag, value in line.items() if is_bad(tag, value)]
    return sorted(bad, key=lambda tag: tag.startswith("grad_norm_"))  # losses first


def describe(
    line: Mapping[str, float], bad: Sequence[str], members: Mapping[int, str], broken: Sequence[int]
) -> str:
    """Say what is wrong with a step: networks, their losses and norms, and the utterances at fault.

    Args:
        line: tag -> value, with `step`.
        bad: what `faults` found, not empty.
        members: slot of each micro-batch -> its utterances.
        broken: slots of the micro-batches with a loss that is not finite.
    """
    by_network: dict[str, list[str]] = {}
    for tag in bad:
        by_network.setdefault(owner(tag), []).append(tag)

    said = []
    for name, tags in by_network.items():
        always = [tag for tag in (network(name).total, f"grad_norm_{name}") if tag in line]
        further = [tag for tag in tags if tag not in always]
        values = [f"{tag} {line[tag]:.4g}" for tag in always + further[:NAMED]]
        said.append(f"network {name}: {', '.join(values)}")
    if not broken:
        said.append("each micro-batch's losses are finite, so that any of them may be at fault")
    said += [f"micro-batch {slot} holds {members[slot]}" for slot in (broken or members)]
    return f"step {line['step']}: " + "; ".join(said)
