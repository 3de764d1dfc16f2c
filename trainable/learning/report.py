"""What a global step tells, gathered from all workers and equal on each of them."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainable.distributed.collectives import all_gather_rows, collective


@dataclass
class StepReport:
    """What a global step tells; the tensors lie on the device: read them late.

    Attributes:
        scalars: tag -> value []: the losses, means over the step's G micro-batches, and behind them
            the gradient norms. NaN for a loss that is not present.
        present: whether all of the G micro-batches have the loss, for each loss: bool [losses].
        consumed: CRC-32 of the manifest rows of each of the G micro-batches, as the workers saw
            them: float64 [G].
        broken: which of the G micro-batches have a total loss that is not finite: bool [G].
        images: images of micro-batch 0's first utterance, if asked for: tag -> [rows, columns].
    """

    scalars: dict[str, Tensor]
    present: Tensor
    consumed: Tensor
    broken: Tensor
    images: dict[str, Tensor] = field(default_factory=dict)


class Told(NamedTuple):
    """What one micro-batch tells: CRC-32 of its manifest rows, and tag -> loss []."""

    crc: int
    losses: Mapping[str, Tensor]


def crc(rows: np.ndarray) -> int:
    """Return the CRC-32 of a micro-batch's manifest rows, int64 [B], in order."""
    return zlib.crc32(rows.astype("<i8").tobytes())


@collective
def gather_report(
    told: Mapping[int, Told],
    tags: Sequence[str],
    totals: Sequence[str],
    G: int,
    device: torch.device,
) -> StepReport:
    """Return the report of all G micro-batches.

    A loss may be missing in some micro-batches, so its presence travels beside its value: no number
    stands for "absent", and a NaN is one that was computed.

    Args:
        told: slot within the step -> what this worker's micro-batch of that slot tells.
        tags: every tag that a loss may have, the same on all workers.
        totals: tags among these of the networks' total losses, which every micro-batch has.
        G: micro-batches of the step, over all workers.
        device: where the losses lie.
    """
    # made on the device: a copy from the host would wait for it
    constant = partial(torch.full, (), dtype=torch.float64, device=device)
    zero = constant(0.0)
    one = constant(1.0)

    rows: dict[int, Tensor] = {}
    for slot, (crc, losses) in told.items():
        values = _doubles([losses[tag].detach() for tag in tags if tag in losses])
        own = iter(values)
        listed = [next(own) if tag in losses else zero for tag in tags]
        presence = [one if tag in losses else zero for tag in tags]
        rows[slot] = torch.stack([constant(crc), *listed, *presence])

    table = all_gather_rows(rows, G, 1 + 2 * len(tags), device)
    consumed = table[:, 0]
    values_of, presence_of = table[:, 1:].split(len(tags), dim=1)  # [G, tags] each
    present = presence_of.bool().all(0)
    means = values_of.mean(0).where(present, torch.nan)

    totals_of = torch.stack([values_of[:, tags.index(tag)] for tag in totals])
    broken = ~totals_of.isfinite().all(0)
    return StepReport(dict(zip(tags, means, strict=True)), present, consumed, broken)


def _doubles(losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return losses [] in float64, cast together where they are of one type."""
    if len({loss.dtype for loss in losses}) > 1:
        return tuple(loss.double() for loss in losses)
    return torch.stack(list(losses)).double().unbind(0)
