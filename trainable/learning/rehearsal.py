"""Memory: the plan's costliest micro-batches are tried out before the first step; one that does not fit is named."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from data.config import DataConfig
from data.plan.epoch_plan import EpochPlan
from data.shards.manifest import Manifest
from data.stream.collate import TtsBatch
from trainable.distributed.collectives import world_size
from trainable.distributed.wrapping import unwrapped
from trainable.learning.reduction import ExactReduction, Reduction
from trainable.learning.state import TrainState
from trainable.learning.step import TrainingStep

log = logging.getLogger("bert_vits2_ray")
Shape = tuple[int, int, int]  # utterances, frames and phones of a padded micro-batch
GIB = 2**30


class OutOfMemory(RuntimeError):  # noqa: N818
    """The memory does not hold a micro-batch; says which, and what to lower."""


def rehearse(step: TrainingStep, plan_of: Callable[[int], EpochPlan], manifest: Manifest) -> str:
    """Try out the costliest micro-batches to come, as `train.rehearse` says; alone, and so that nothing is left of it.

    Args:
        step: the run's, at the position to start from.
        plan_of: epoch -> plan; the present one and the next are looked at.
        manifest: whose rows they plan.

    Returns:
        What does not fit, or nothing; to be shared by all workers.
    """
    when, position = step.train.rehearse, step.state.position
    wanted = when == "always" or (when == "auto" and step.device.type == "cuda")
    if not wanted or position.step >= step.train.max_steps:
        return ""
    frames, phones = (manifest.column(name).astype(np.int64) for name in ("frames", "phones"))
    lengths = np.stack([frames, 2 * phones + 1 if step.data.add_blank else phones])
    now, later = plan_of(position.epoch), plan_of(position.epoch + 1)
    shapes = costliest(now, position.epoch_step, lengths) | costliest(later, 0, lengths)
    peak = 0
    for shape in sorted(shapes):
        try:
            peak = max(peak, rehearse_one(step, shape))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return f"out of memory before the first step, {told(shape, step.data)} ({str(error).splitlines()[0]})"
    if step.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(step.device)
        log.info(
            "the costliest micro-batches take %.1f GiB of the device's %.1f; %.1f are free, %.1f of them kept by torch",
            peak / GIB,
            total / GIB,
            (free + torch.cuda.memory_reserved(step.device)) / GIB,
            torch.cuda.memory_reserved(step.device) / GIB,
        )
    return ""


def costliest(plan: EpochPlan, begin: int, lengths: np.ndarray) -> set[Shape]:
    """The shapes of most padded frames and of most cells of the alignment, of the steps from `begin` on.

    `lengths` are frames and phones of the manifest's rows, with blanks: int64 [2, rows].
    """
    first = int(plan.begins[begin])
    starts = plan.offsets[first:-1]
    sizes = np.diff(plan.offsets[first:])
    frames, phones = (np.maximum.reduceat(each[plan.order], starts) for each in lengths)
    most = {int(np.argmax(sizes * frames)), int(np.argmax(sizes * frames * phones))}
    return {(int(sizes[m]), int(frames[m]), int(phones[m])) for m in most}


def rehearse_one(step: TrainingStep, shape: Shape) -> int:
    """One micro-batch forward and backward through both phases; returns the most bytes allocated on a GPU, else 0."""
    state, device = step.state, step.device
    cuda = device.type == "cuda"
    alone = copy.copy(state)
    alone.averaged = None  # the weights do not change, and their average must not
    alone.reduction = Alone(state.reduction, step.train.micro_batches_per_step)  # type: ignore[assignment]
    # of spectral norm
    buffers = [(b, b.clone()) for net in state.nets.values() for b in unwrapped(net).buffers()]
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    batch = made_up(shape, state.model.bert_channels, step.data, device)
    # of a step's, which wait on the device
    others = -(-step.train.micro_batches_per_step // world_size()) - 1
    size = sum(t.nbytes for f in fields(batch) if isinstance(t := getattr(batch, f.name), Tensor))
    ballast = torch.empty(yet_to_come(state) + others * size, dtype=torch.uint8, device=device)
    try:
        Rehearsal(alone, step.train, step.data)([(0, batch)])
        return torch.cuda.max_memory_allocated(device) if cuda else 0
    finally:
        del ballast
        for net in state.nets.values():
            net.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)


class Rehearsal(TrainingStep):
    """A step of which nothing is left."""

    def update(self, name: str) -> Tensor:
        """No update; the gradients go."""
        for parameter in self.state.trainable[name]:
            parameter.grad = None
        return torch.zeros((), device=self.device)

    def gather(self, losses: Mapping[int, Mapping[str, Tensor]], crcs: Mapping[int, int]) -> tuple:
        """No collective: the others may have run out of memory."""
        return {}, torch.zeros(0), torch.zeros(0, dtype=torch.bool)


class Alone:
    """In place of the run's reduction: this worker's gradients, no communication. DDP's hooks wait for its forward."""

    def __init__(self, reduction: Reduction, micro_batches_per_step: int):
        self.loss_scale = 1.0
        self.keeps_graph = reduction.keeps_graph and micro_batches_per_step <= world_size()

    def module(self, net: nn.Module) -> nn.Module:
        """The network itself."""
        return unwrapped(net)

    def micro_batch(
        self, nets: Mapping[str, nn.Module], last: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Nothing to do."""
        return contextlib.nullcontext()

    def finish(self, name: str) -> None:
        """Nothing to do."""


def yet_to_come(state: TrainState) -> int:
    """Bytes on the device that the first step takes for good, or beside its micro-batches, but no rehearsal does.

    AdamW's two moments, where no checkpoint has brought them, and the integer sums of exact
    reduction.
    """
    moments = sum(
        8 * p.numel()
        for name, o in state.optimizers.items()
        for p in state.trainable[name]
        if p not in o.state
    )
    if not isinstance(state.reduction, ExactReduction):
        return moments
    sizes = {name: sum(p.numel() for p in own) for name, own in state.trainable.items()}
    return moments + 8 * max(sizes["g"], sum(size for name, size in sizes.items() if name != "g"))


def made_up(shape: Shape, bert_channels: int, data: DataConfig, device: torch.device) -> TtsBatch:
    """A micro-batch of a shape, on the device: noise, and a token a phone."""
    B, F, T = shape
    zeros = torch.zeros(B, T, dtype=torch.int64)
    return (
        TtsBatch(
            rows=torch.zeros(B, dtype=torch.int64),
            x=zeros,
            x_lengths=torch.full((B,), T),
            tone=zeros,
            language=zeros,
            bert=torch.zeros(B, T, bert_channels, dtype=torch.float16),
            token_index=zeros,
            y=0.1 * torch.randn(B, 1, F * data.hop_length),
            y_lengths=torch.full((B,), F * data.hop_length),
            spec_lengths=torch.full((B,), F),
            speakers=torch.zeros(B, dtype=torch.int64),
            inactive=data.bert.inactive,
        )
        .to(device)
        .with_spectrogram(data)
    )


@contextlib.contextmanager
def naming(step: TrainingStep, ids: np.ndarray) -> Iterator[None]:
    """Where the step inside runs out of memory, say with which micro-batch.

    Args:
        step: it.
        ids: of the manifest's rows.

    Raises:
        OutOfMemory: in place of the many errors that mean it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if step.at is None or not is_out_of_memory(error):
            raise
        slot, batch = step.at
        assert batch.spec is not None
        shape = (batch.x.shape[0], batch.spec.shape[2], batch.x.shape[1])
        names = ", ".join(ids[batch.rows.numpy()])
        raise OutOfMemory(
            f"out of memory in micro-batch {slot} of its step, {told(shape, step.data)}. Its utterances: {names}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the host's memory is full."""
    # torch's, CUDA's, cuBLAS's
    said = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        part in str(error) for part in said
    )


def told(shape: Shape, data: DataConfig) -> str:
    """A shape in words, and what makes it smaller."""
    B, F, T = shape
    what = f"{B} utterances padded to {F} frames and {T} phones, {B * F} frames in all"
    if B == 1:
        return f"{what}: it is one alone, so lower data.max_seconds and prepare again, or take another train.precision"
    if data.plan.mode == "buckets":
        return f"{what}: lower data.plan.max_utterances (now {data.plan.max_utterances})"
    return f"{what}: lower data.plan.max_frames (now {data.plan.max_frames}); the run goes on from its last checkpoint"
