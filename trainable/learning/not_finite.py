"""Numbers that blow up: what is wrong with a step, in words."""

import math
from collections.abc import Collection, Mapping, Sequence

# by part of a tag
NETWORK_OF = {"d_r": "d", "d_g": "d", "dur_disc": "dur", "dur_disc_r": "dur", "dur_disc_g": "dur"}
TOTALS = {
    "g": "loss/g/total",
    "d": "loss/d/total",
    "dur": "loss/dur_disc/total",
    "wd": "loss/wd/total",
}
NAMED = 4  # further losses of a network that a message names
# under fp16: from 2^16 the scaler then has come to 2^-14, where gradients are lost
OVERFLOWS_IN_A_ROW = 30


class NotFiniteError(FloatingPointError):
    """A loss or a gradient is not a finite number, or a gradient exploded.

    Attributes:
        step: the first global step where that is so.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def faults(
    line: Mapping[str, float], max_grad_norm: float | None, tolerated: Collection[str] = ()
) -> list[str]:
    """Tags of a step's losses and gradient norms that are not finite, and of norms that are too large.

    Args:
        line: tag -> value.
        max_grad_norm: a larger norm is too large; None: none is.
        tolerated: gradient norms that need not be finite, as of fp16 while the scale is sought: the
            scaler skips such updates.
    """
    limit = math.inf if max_grad_norm is None else max_grad_norm
    losses = [tag for tag, v in line.items() if tag.startswith("loss/") and not math.isfinite(v)]
    norms = [tag for tag in line if tag.startswith("grad_norm_")]
    return losses + [
        tag
        for tag in norms
        if (line[tag] > limit if math.isfinite(line[tag]) else tag not in tolerated)
    ]


def describe(
    line: Mapping[str, float], bad: Sequence[str], members: Mapping[int, str], broken: Sequence[int]
) -> str:
    """What is wrong with a step: networks with their losses and gradient norms, and the utterances at fault.

    Args:
        line: tag -> value, with `step`.
        bad: of `faults`, not empty.
        members: the utterances of each micro-batch.
        broken: micro-batches with a loss that is not finite.
    """
    networks: dict[str, list[str]] = {}
    for tag in bad:
        networks.setdefault(_network(tag), []).append(tag)
    said = []
    for name, tags in networks.items():
        always = [tag for tag in (TOTALS[name], f"grad_norm_{name}") if tag in line]
        further = [tag for tag in tags if tag not in always]
        said.append(
            f"network {name}: "
            + ", ".join(f"{tag} {line[tag]:.4g}" for tag in always + further[:NAMED])
        )
    where = [f"micro-batch {slot} holds {members[slot]}" for slot in (broken or members)]
    if not broken:
        where.insert(0, "each micro-batch's losses are finite, so that any of them may be at fault")
    return f"step {line['step']}: " + "; ".join(said + where)


def _network(tag: str) -> str:
    part = tag.removeprefix("grad_norm_").split("/")
    name = part[1] if len(part) > 1 else part[0]
    return NETWORK_OF.get(name, name)
