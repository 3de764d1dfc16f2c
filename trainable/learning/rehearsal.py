"""Memory: the plan's costliest micro-batches are tried out before the first step.

One that does not fit is named.
"""

import contextlib
import copy
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from data.config import DataConfig
from data.plan.epoch_plan import EpochPlan, rounded_up
from data.shards.manifest import Manifest, Names
from data.stream.collate import Extent, TtsBatch
from trainable.distributed.collectives import world_size
from trainable.distributed.wrapping import unwrapped
from trainable.learning.reduction import ExactReduction, Reduction
from trainable.learning.report import StepReport
from trainable.learning.state import TrainState
from trainable.learning.step import StepBatch, TrainingStep
from trainable.networks.registry import GENERATOR

log = logging.getLogger("bert_vits2_ray")
Shape = tuple[int, int, int]  # utterances, frames and phones of a padded micro-batch
GIB = 2**30
# Messages of torch and the system, CUDA and HIP, cuBLAS and its kin; and of cuDNN, which finds no
# way to compute if there is no room for any one's workspace.
MEMORY_IS_FULL = re.compile(
    r"not enough memory|can't allocate memory|cannot allocate memory|out of memory|bad_alloc"
    r"|ErrorOutOfMemory|ERROR_OUT_OF_MEMORY|ALLOC_FAILED|memory allocation failure"
    r"|unable to find an engine",
    re.IGNORECASE,
)
NCCL_MET_CUDA = re.compile(r"ncclUnhandledCudaError|unhandled cuda error", re.IGNORECASE)


class OutOfMemory(RuntimeError):  # noqa: N818
    """The memory does not hold a micro-batch; the message names it, and what to lower."""


def rehearse(step: TrainingStep, plan_of: Callable[[int], EpochPlan], manifest: Manifest) -> str:
    """Try out the costliest micro-batches to come, as `train.rehearse` says.

    No other worker takes part, and the state is afterwards what it was.

    Args:
        step: the run's training step, at the position to start from.
        plan_of: epoch -> plan; the present one and the next are looked at.
        manifest: the utterances that they plan.

    Returns:
        What does not fit, or ""; to be shared with all workers.
    """
    when = step.train.rehearse
    position = step.state.position
    wanted = when == "always" or (when == "auto" and step.device.type == "cuda")
    if not wanted or position.step >= step.train.max_steps:
        return ""
    frames, phones = (manifest.column(name).astype(np.int64) for name in ("frames", "phones"))
    pad_to = step.data.plan.pad_to
    tokens = 2 * phones + 1 if step.data.add_blank else phones
    lengths = np.stack(
        [rounded_up(frames, pad_to.frames), rounded_up(tokens, pad_to.tokens)],
    )
    shapes = costliest(plan_of(position.epoch), position.epoch_step, lengths)
    shapes |= costliest(plan_of(position.epoch + 1), 0, lengths)

    peak = 0
    for shape in sorted(shapes):
        try:
            peak = max(peak, rehearse_one(step, shape))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
            what = told(shape, step.data)
            return f"out of memory before the first step, {what} ({reason})"
    if step.device.type == "cuda":
        log_memory(peak, step.device)
    return ""


def log_memory(peak: int, device: torch.device) -> None:
    """Log how much of a GPU's memory the costliest micro-batches took, in bytes at most `peak`."""
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    log.info(
        "the costliest micro-batches take %.1f GiB of the device's %.1f; %.1f are free, %.1f of "
        "them kept by torch",
        peak / GIB,
        total / GIB,
        (free + reserved) / GIB,
        reserved / GIB,
    )


def costliest(plan: EpochPlan, begin: int, lengths: np.ndarray) -> set[Shape]:
    """Return the shapes with the most padded frames and with the most cells of the alignment.

    Args:
        plan: an epoch's micro-batches.
        begin: first step that counts.
        lengths: frames and phones, blanks included, of the manifest's rows: int64 [2, rows].
    """
    first = int(plan.begins[begin])
    starts = plan.offsets[first:-1]
    sizes = np.diff(plan.offsets[first:])
    frames, phones = (np.maximum.reduceat(each[plan.order], starts) for each in lengths)
    most = {int(np.argmax(sizes * frames)), int(np.argmax(sizes * frames * phones))}
    return {(int(sizes[m]), int(frames[m]), int(phones[m])) for m in most}


def rehearse_one(step: TrainingStep, shape: Shape) -> int:
    """Run one micro-batch forward and backward through both phases.

    Returns:
        The most bytes that torch has taken of a GPU, with the gaps between them; 0 on a CPU.
    """
    state = step.state
    device = step.device
    G = step.train.micro_batches_per_step
    cuda = device.type == "cuda"
    alone = copy.copy(state)
    alone.averaged = None  # the weights do not change, and their average must not
    alone.reduction = Alone(state.reduction, G)  # type: ignore[assignment]
    # spectral norm changes its buffers with every forward pass
    buffers = [(b, b.clone()) for net in state.nets.values() for b in unwrapped(net).buffers()]

    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    batch = made_up(shape, state.model.bert_channels, step.data, device)
    # the worker's other micro-batches of a step wait on the device, and those of the next one
    others = 2 * -(-G // world_size()) - 1
    tensors = [t for f in fields(batch) if isinstance(t := getattr(batch, f.name), Tensor)]
    size = sum(t.nbytes for t in tensors)
    ballast = torch.empty(yet_to_come(state) + others * size, dtype=torch.uint8, device=device)
    try:
        Rehearsal(alone, step.train, step.data)([(0, batch)])
        return torch.cuda.max_memory_reserved(device) if cuda else 0
    finally:
        del ballast
        for net in state.nets.values():
            net.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)


class Rehearsal(TrainingStep):
    """A step that leaves no trace in the state; the discriminators always take part."""

    adversarial = True

    def update(self, name: str) -> Tensor:
        """Drop the gradients instead of updating the weights."""
        for parameter in self.state.trainable[name]:
            parameter.grad = None
        return torch.zeros((), device=self.device)

    def gathered_report(self, share: Sequence[StepBatch]) -> StepReport:
        """Make no collective call: the others may have run out of memory."""
        nothing = torch.zeros(0, dtype=torch.bool)
        return StepReport({}, nothing, torch.zeros(0), nothing)


class Alone:
    """In place of the run's reduction: this worker's gradients, without communication.

    DDP's hooks wait for a forward pass through its wrapper, which never comes.
    """

    def __init__(self, reduction: Reduction, micro_batches_per_step: int):
        self.loss_scale = 1.0
        self.keeps_graph = reduction.keeps_graph and micro_batches_per_step <= world_size()

    def module(self, net: nn.Module) -> nn.Module:
        """Return the network itself."""
        return unwrapped(net)

    def micro_batch(
        self, nets: Mapping[str, nn.Module], last: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Do nothing around the passes."""
        return contextlib.nullcontext()

    def finish(self, name: str) -> None:
        """Do nothing: the gradients are complete."""


def yet_to_come(state: TrainState) -> int:
    """Return the bytes on the device that the first step needs and a rehearsal does not.

    They are AdamW's two moments, unless a checkpoint has brought them, and the gradients of the
    worker's other micro-batches, which exact reduction keeps until all are there.
    """
    moments = sum(
        8 * p.numel()
        for name, optimizer in state.optimizers.items()
        for p in state.trainable[name]
        if p not in optimizer.state
    )
    if not isinstance(state.reduction, ExactReduction):
        return moments
    sizes = {name: sum(p.numel() for p in own) for name, own in state.trainable.items()}
    generator = sizes.pop(GENERATOR)
    others = -(-state.train.micro_batches_per_step // world_size()) - 1
    # the two phases do not have theirs at the same time
    return moments + 4 * others * max(generator, sum(sizes.values()))


def made_up(shape: Shape, bert_channels: int, data: DataConfig, device: torch.device) -> TtsBatch:
    """Return a micro-batch of a shape, on the device: noise, and one token per phone."""
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
            bert_config=data.bert,
            extent=Extent(F, T, B * F),
        )
        .to(device)
        .with_spectrogram(data)
    )


@contextlib.contextmanager
def naming(step: TrainingStep, ids: Names) -> Iterator[None]:
    """Name the micro-batch with which a step inside the block runs out of memory.

    Args:
        step: the step.
        ids: utterances of rows of the manifest.

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
        what = told(shape, step.data)
        names = ", ".join(ids[batch.rows.numpy()])
        raise OutOfMemory(
            f"out of memory in micro-batch {slot} of its step, {what}. Its utterances: {names}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device's or the host's memory is full."""
    told = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or MEMORY_IS_FULL.search(told):
        return True
    # NCCL takes memory of its own, beside torch's, and may leave the reason to its log
    return bool(NCCL_MET_CUDA.search(told)) and "cuda failure" not in told.lower()


def told(shape: Shape, data: DataConfig) -> str:
    """Describe a shape, and what makes it smaller."""
    B, F, T = shape
    what = f"{B} utterances padded to {F} frames and {T} phones, {B * F} frames in all"
    plan = data.plan.settled()
    if B == 1:
        return (
            f"{what}: a single utterance, so lower data.max_seconds and prepare again, "
            "or choose another train.precision"
        )
    if plan.mode == "buckets":
        return f"{what}: lower data.plan.max_utterances (now {plan.max_utterances})"
    if plan.max_frames is None:
        lower = f"data.plan.cost.budget (now {plan.cost.budget:g}), or set data.plan.max_frames"
    else:
        lower = f"data.plan.max_frames (now {plan.max_frames})"
    return f"{what}: lower {lower}; the run resumes from its last checkpoint"
