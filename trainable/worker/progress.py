"""What the records and rank 0's log tell about a run's steps."""

import logging
import resource
from collections.abc import Sequence

import numpy as np
import torch

from data.plan.epoch_plan import EpochPlan
from data.shards.manifest import Names
from data.stream.micro_batches import MicroBatch
from trainable.run.records import RunLog

log = logging.getLogger("bert_vits2_ray")
NAMES_SHOWN = 100


def announce(epoch: int, plan: EpochPlan, names: Names) -> None:
    """Log what an epoch uses twice and what it leaves out.

    Args:
        epoch: number of the epoch.
        plan: plan of the epoch.
        names: utterances' ids by row of the manifest.
    """
    log.info("epoch %d: %d global steps", epoch, plan.steps)
    for what, rows in (
        ("fills its last step with", plan.filled_rows()),
        ("leaves out", plan.left_out),
    ):
        if len(rows):
            ids = ", ".join(names[rows[:NAMES_SHOWN]]) + (
                ", ..." if len(rows) > NAMES_SHOWN else ""
            )
            log.info("epoch %d %s %d utterances: %s", epoch, what, len(rows), ids)


def show_progress(records: RunLog, max_steps: int) -> None:
    """Read and write the scalars of the steps since the last time, and show the last one.

    Args:
        records: the run's records.
        max_steps: number of the run's steps.

    Raises:
        NotFiniteError: as of `RunLog.flush`.
    """
    lines = records.flush()
    if not (lines and records.writes):
        return
    line = lines[-1]
    records.scalars(line)

    seconds = [x["seconds"] for x in lines]
    log.info(
        "step %d/%d epoch %d: mel %.3f kl %.3f g %.2f d %.3f"
        " | %.2f s/step, %.1f utterances/s, %d workers",
        line["step"],
        max_steps,
        line["epoch"],
        line["loss/g/mel"],
        line["loss/g/kl"],
        line["loss/g/total"],
        line["loss/d/total"],
        np.mean(seconds),
        sum(x["utterances"] for x in lines) / sum(seconds),
        line["world_size"],
    )


def padding_share(micro_batches: Sequence[MicroBatch]) -> float:
    """Return the padded share of this worker's spectrogram frames."""
    used = sum(m.batch.extent.own_frames for m in micro_batches)
    return 1 - used / computed_frames(micro_batches)


def computed_frames(micro_batches: Sequence[MicroBatch]) -> int:
    """Return how many spectrogram frames this worker computes, padding included."""
    return sum(m.batch.computed_frames for m in micro_batches)


def peak_gib(device: torch.device) -> float:
    """Return the most memory that this worker has had: the GPU's, or the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
