"""Means of gradients with the same bits for any number of workers, at the bytes of floats.

Sums of integers do not depend on their order. The gradients of a parameter are cut into blocks, and
all micro-batches of a step agree on the exponent of a block's largest magnitude. Each of them
rounds its gradients to integers of 32 bits on that scale, and the integers are added up, over a
worker's micro-batches and over the workers. So a worker keeps the gradients of its micro-batches
apart until the scale is known. Blocks end with their parameter: which parameters are sent together
does not matter.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainable.distributed.collectives import world_size

BLOCK = 64  # gradients with one scale
SUM_BITS = 30  # of the magnitude of a sum of integers
NOT_FINITE = 255  # code of a block that holds NaN or infinity
LARGEST = 128  # exponent of the largest fp32 values: they are below 2^128


class Bucket:
    """Parameters that are sent together, in three moves: `agree`, `send` and `write`.

    All workers make the moves of all buckets in the same order.

    Args:
        parameters: the parameters; fp32, on one device.
        micro_batches: G, micro-batches per global step, of all workers together.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], micro_batches: int):
        self.parameters = parameters
        self.G = micro_batches
        self.bits = SUM_BITS - (micro_batches - 1).bit_length()
        # The exponent of a block is at least this one, so that scale and unit are normal numbers.
        self.lowest = self.bits - 126
        self.padded = [-(-p.numel() // BLOCK) * BLOCK for p in parameters]
        self.zeros = torch.zeros(BLOCK, device=parameters[0].device)
        self.missing = 0  # parameters whose last gradients of the step are not there yet
        self.own: list[Tensor] = []
        self.codes: Tensor | None = None
        self.sums: Tensor | None = None
        self.work: dist.Work | None = None

    @torch.no_grad()
    def agree(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        """Begin to agree on the blocks' scales.

        Args:
            gradients: of each of this worker's micro-batches, those of the parameters.
        """
        self.own = [self._in_blocks(each) for each in gradients]
        self.codes = torch.stack([self._codes(x) for x in self.own]).amax(0)
        self.work = _all_reduced(self.codes, dist.ReduceOp.MAX)

    @torch.no_grad()
    def send(self) -> None:
        """Begin to add up the integers."""
        _wait(self.work)
        scales = _power_of_two(self.bits - self._exponents())[:, None]
        integers = (x.mul_(scales).round_().to(torch.int32) for x in self.own)
        self.sums = next(integers)
        for more in integers:
            self.sums += more
        self.own = []
        self.work = _all_reduced(self.sums, dist.ReduceOp.SUM)

    @torch.no_grad()
    def write(self) -> None:
        """Write the means over all micro-batches to `.grad`; NaN where any had no finite number."""
        _wait(self.work)
        assert self.sums is not None
        assert self.codes is not None
        units = _power_of_two(self._exponents() - self.bits) / self.G
        units = torch.where(self.codes == NOT_FINITE, torch.nan, units)
        means = self.sums.float().mul_(units[:, None]).flatten()
        for p, mean in zip(self.parameters, means.split(self.padded), strict=True):
            p.grad = mean[: p.numel()].view_as(p)
        self.sums = self.codes = self.work = None

    def _in_blocks(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return gradients of the parameters as a copy [blocks, BLOCK], padded with zeros."""
        parts = []
        for gradient, padded in zip(gradients, self.padded, strict=True):
            parts += [gradient.flatten(), self.zeros[: padded - gradient.numel()]]
        return torch.cat(parts).view(-1, BLOCK)

    def _codes(self, x: Tensor) -> Tensor:
        """Return what the blocks of a micro-batch ask for, of which the largest holds: uint8.

        It is 0 where all is zero, NOT_FINITE, or e + 1 - lowest where 2^e is above all magnitudes.
        """
        largest = torch.linalg.vector_norm(x, torch.inf, dim=1)
        exponents = torch.frexp(largest).exponent.clamp(min=self.lowest)
        codes = torch.where(largest > 0, exponents + 1 - self.lowest, 0)
        return torch.where(largest.isfinite(), codes, NOT_FINITE).to(torch.uint8)

    def _exponents(self) -> Tensor:
        """Return the exponents e that were agreed on: int32 [blocks]."""
        assert self.codes is not None
        return (self.codes.int() - 1 + self.lowest).clamp(self.lowest, LARGEST)


def _power_of_two(exponents: Tensor) -> Tensor:
    """Return 2^exponents in fp32, put together from its bits: int32 from -126 to 127."""
    return ((exponents + 127) << 23).view(torch.float32)


def _all_reduced(tensor: Tensor, op: dist.ReduceOp.RedOpType) -> dist.Work | None:
    """Begin an all-reduce in place; nothing is to do for one worker."""
    return dist.all_reduce(tensor, op, async_op=True) if world_size() > 1 else None


def _wait(work: dist.Work | None) -> None:
    """Wait for an all-reduce: on a GPU its stream does, and the host goes on."""
    if work is not None:
        work.wait()


class ExactSums:
    """The gradients of parameters that one backward pass reaches, over all micro-batches.

    With several workers the gradients are sent while the last micro-batch's backward pass goes on.
    Buckets follow the order in which gradients become ready, which the first step shows: it sends
    them after its backward pass.

    Args:
        parameters: name -> parameter.
        micro_batches: G, micro-batches per global step.
        bucket_bytes: gradients that are sent together.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], micro_batches: int, bucket_bytes: float
    ):
        self.names = {p: name for name, p in parameters.items()}
        self.parameters = list(parameters.values())
        self.G = micro_batches
        self.bucket_bytes = bucket_bytes
        self.taken: dict[nn.Parameter, list[Tensor]] = {p: [] for p in self.parameters}
        self.are_written = True
        self.order: list[nn.Parameter] = []  # in which the last gradients became ready
        self.follows_order = False
        self._cut(self.parameters)

    def _cut(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make buckets of the parameters, in this order."""
        groups: list[list[nn.Parameter]] = [[]]
        size = 0
        for p in parameters:
            if groups[-1] and size + p.nbytes > self.bucket_bytes:
                groups.append([])
                size = 0
            groups[-1].append(p)
            size += p.nbytes
        self.buckets = [Bucket(group, self.G) for group in groups]
        self.bucket_of = {p: bucket for bucket in self.buckets for p in bucket.parameters}
        self._start_again()

    def _start_again(self) -> None:
        self.begun = 0  # buckets whose scales are being agreed on, or are
        for bucket in self.buckets:
            bucket.missing = len(bucket.parameters)

    def keep(self) -> None:
        """Take the gradients of a micro-batch that is not this worker's last of the step."""
        for p in self.parameters:
            self._take(p)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Surround the last micro-batch's passes; what is ready is sent meanwhile."""
        self.are_written = False
        if world_size() == 1:
            yield
            return
        self.order = []
        hooks = [p.register_post_accumulate_grad_hook(self._is_ready) for p in self.parameters]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self) -> None:
        """Send what is left, and write the means to `.grad`, once per step.

        All workers do, at the same time.
        """
        if self.are_written:
            return
        if world_size() == 1:
            self.keep()
        while self.begun < len(self.buckets):
            self._begin()
        self.buckets[-1].send()
        for bucket in self.buckets:
            bucket.write()
        self.are_written = True
        self._start_again()
        if world_size() > 1 and not self.follows_order:
            self._follow_order()

    def _take(self, p: nn.Parameter) -> None:
        assert p.grad is not None, f"{self.names[p]} takes no part in its network's loss"
        self.taken[p].append(p.grad)
        p.grad = None

    def _is_ready(self, p: nn.Parameter) -> None:
        """Take the last gradient of a parameter, and begin with the buckets that are complete."""
        self._take(p)
        self.order.append(p)
        self.bucket_of[p].missing -= 1
        if self.follows_order:
            while self.begun < len(self.buckets) and self.buckets[self.begun].missing == 0:
                self._begin()

    def _begin(self) -> None:
        """Agree on the next bucket's scales, and send the one before, whose scales are known."""
        bucket = self.buckets[self.begun]
        for p in bucket.parameters:
            assert self.taken[p], f"{self.names[p]} takes no part in its network's loss"
        bucket.agree(list(zip(*(self.taken[p] for p in bucket.parameters), strict=True)))
        for p in bucket.parameters:
            self.taken[p] = []
        if self.begun > 0:
            self.buckets[self.begun - 1].send()
        self.begun += 1

    def _follow_order(self) -> None:
        """Cut the buckets again, by the order in which rank 0's gradients became ready."""
        number = {p: i for i, p in enumerate(self.parameters)}
        order = torch.tensor([number[p] for p in self.order], device=self.parameters[0].device)
        if dist.get_rank() > 0:
            order.zero_()
        dist.all_reduce(order)
        self._cut([self.parameters[i] for i in order.tolist()])
        self.follows_order = True
