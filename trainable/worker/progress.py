"""What the records and rank 0's log tell about a run's steps."""

import logging
import resource
from collections.abc import Sequence

import numpy as np
import torch

from data.plan.epoch_plan import EpochPlan
from data.shards.manifest import Names
from data.stream.micro_batches import MicroBatch
from trainable.distributed.collectives import backend
from trainable.hardware import device_name
from trainable.learning.state import TrainState
from trainable.run.records import RunLog
from trainable.worker.config import WorkerConfig

log = logging.getLogger("bert_vits2_ray")
NAMES_SHOWN = 100
# name in the log -> tag of a step's scalars
SHOWN = {
    "mel": "loss/g/mel",
    "kl": "loss/g/kl",
    "dur": "loss/g/dur",
    "fm": "loss/g/fm",
    "g": "loss/g/total",
    "d": "loss/d/total",
    "dur_disc": "loss/dur_disc/total",
    "wd": "loss/wd/total",
    "lr": "lr",
}


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


def tell_what_runs(
    cfg: WorkerConfig, world_size: int, device: torch.device, state: TrainState
) -> None:
    """Log what a start trains, and on what."""
    train = cfg.train
    frozen = 0
    sizes = []
    for name, net in state.nets.items():
        own = list(net.parameters())
        frozen += sum(not p.requires_grad for p in own)
        sizes.append(f"{name} {sum(p.numel() for p in own):,}")
    log.info(
        "code %s; %d workers of %s, %s; %d micro-batches per step, %s, %s reduction",
        cfg.code_version,
        world_size,
        device_name(device),
        backend(),
        train.micro_batches_per_step,
        train.precision,
        train.reduction,
    )
    log.info("%s; parameters %s; %d tensors frozen", _variant(cfg), ", ".join(sizes), frozen)


def _variant(cfg: WorkerConfig) -> str:
    """Return what of VITS2 the networks have."""
    model = cfg.model
    switches = {
        "transformer flow": model.use_transformer_flow,
        "speaker in the text encoder": model.use_spk_conditioned_encoder,
        "noise in the alignment": model.use_noise_scaled_mas,
        "duration discriminator": model.use_duration_discriminator,
    }
    without = [name for name, on in switches.items() if not on]
    kind = "VITS" if len(without) == len(switches) else "VITS2"
    return f"{kind} without {', '.join(without)}" if without else kind


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
        "step %d/%d epoch %d: %s | %.2f s/step, %.1f utterances/s, %d workers",
        line["step"],
        max_steps,
        line["epoch"],
        " ".join(f"{name} {line[tag]:.4g}" for name, tag in SHOWN.items() if tag in line),
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
