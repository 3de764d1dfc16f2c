"""How the gradients of a global step's G micro-batches become one mean on all workers.

`fast` is DistributedDataParallel's own all-reduce, overlapped with the backward pass; its
floating-point sum depends on the number of workers in the last bits. `exact` adds integers, and
integer sums do not depend on their order: every gradient is rounded to an int64 on a per-tensor
power-of-two scale that is part of the training state, so that the mean has the same bits for every
world size.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainable.distributed.collectives import world_size
from trainable.distributed.wrapping import unwrapped

# a gradient may grow by 2^20 from one step to the next before `exact` reports an overflow
HEADROOM_BITS = 20


class FastReduction:
    """DDP's own mean over workers, weighted so that it is the mean over micro-batches.

    For uneven shares too.
    """

    def __init__(self, micro_batches_per_step: int):
        self.loss_scale = world_size() / micro_batches_per_step
        # DDP's networks must be used in the same order on all workers: keep the graph on all of
        # them or on none. In an uneven step a worker that could keep it would only wait for the
        # others.
        self.keeps_graph = world_size() == micro_batches_per_step

    def module(self, net: nn.Module) -> nn.Module:
        """Return what a forward pass that trains `net` goes through: DDP's wrapper."""
        return net

    @contextlib.contextmanager
    def micro_batch(self, nets: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        """Surround forward and backward passes; only a worker's last micro-batch communicates.

        Args:
            nets: the networks that the passes train, by name.
            last: whether this is the worker's last micro-batch of the step.
        """
        with contextlib.ExitStack() as stack:
            for net in nets.values():
                if not last and isinstance(net, DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            yield

    def finish(self, name: str) -> None:
        """Complete the gradients of network `name`: nothing is left to do, DDP has reduced them."""

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Return nothing: it has no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Ignore the state: it has none."""


@dataclass(frozen=True)
class Bucket:
    """Parameters of a network that are worked on together.

    It is small enough for the intermediate values to stay small.

    Attributes:
        parameters: the parameters, in the network's order.
        first: number of the first one within the network.
        begin: position of its first element within the network's flat sums.
        counts: elements of each parameter, int64 on their device.
    """

    parameters: list[nn.Parameter]
    first: int
    begin: int
    counts: Tensor

    @property
    def sizes(self) -> list[int]:
        """Number of elements of each parameter."""
        return [p.numel() for p in self.parameters]

    def of(self, flat: Tensor) -> Tensor:
        """Return this bucket's part of the network's flat sums, a view [elements]."""
        return flat[self.begin : self.begin + sum(self.sizes)]

    def multiply(self, flat: Tensor, each: Tensor) -> None:
        """Multiply the elements of each parameter by a value of its own, in place.

        Args:
            flat: [elements of this bucket].
            each: [parameters of the network], powers of two, so that all products are exact.
        """
        own = each[self.first : self.first + len(self.parameters)]
        if own.is_cpu:  # where to spread the values costs more than a call per parameter
            for part, factor in zip(flat.split(self.sizes), own.unbind(), strict=True):
                part.mul_(factor)
        else:
            spread = torch.repeat_interleave(own, self.counts, output_size=len(flat))
            flat.mul_(spread.to(flat.dtype))


def buckets(parameters: list[nn.Parameter], largest: int = 1 << 22) -> list[Bucket]:
    """Cut a network's parameters into buckets of at most `largest` elements or of one parameter."""
    made: list[Bucket] = []
    begin = 0
    first = 0
    while first < len(parameters):
        last = first + 1
        size = parameters[first].numel()
        while last < len(parameters) and size + parameters[last].numel() <= largest:
            size += parameters[last].numel()
            last += 1
        own = parameters[first:last]
        counts = torch.tensor([p.numel() for p in own], device=own[0].device)
        made.append(Bucket(own, first, begin, counts))
        begin += size
        first = last
    return made


class ExactReduction:
    """Order-independent sums: int64 on a per-tensor power-of-two scale.

    The scale of a tensor follows the largest magnitude that its sum had in the step before, and is
    kept in the checkpoint. Values that are not finite, or past the head-room, never wrap: they are
    left out or held at its end, and noted, on all workers alike: the first gradient of such a
    network becomes NaN, which its norm shows.
    """

    def __init__(self, micro_batches_per_step: int, nets: Mapping[str, nn.Module]):
        self.loss_scale = 1.0
        self.keeps_graph = True
        self.G = micro_batches_per_step
        # below the sign and its carry; the sum of G values must fit
        self.bits = 61 - (self.G - 1).bit_length()
        # by network: names of its parameters, the parameters in buckets, and their exponents
        self.keys: dict[str, list[str]] = {}
        self.buckets: dict[str, list[Bucket]] = {}
        self.exponents: dict[str, Tensor] = {}
        for name, net in nets.items():
            parameters = unwrapped(net).named_parameters()
            trainable = {key: p for key, p in parameters if p.requires_grad}
            own = list(trainable.values())
            self.keys[name] = list(trainable)
            self.buckets[name] = buckets(own)
            zeros = torch.zeros(len(own), dtype=torch.float64, device=own[0].device)
            self.exponents[name] = zeros
        # by network: int64 [elements + 1], of which the last counts buckets with such
        self.sums: dict[str, Tensor] = {}

    def module(self, net: nn.Module) -> nn.Module:
        """Return what a forward pass that trains `net` goes through: the network itself.

        DDP's wrapper would add up floats.
        """
        return unwrapped(net)

    @contextlib.contextmanager
    def micro_batch(self, nets: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        """Surround forward and backward passes; the gradients join the integer sums.

        They leave `.grad` empty.
        """
        yield
        for name in nets:
            self._add(name)

    def _scales(self, name: str) -> Tensor:
        """Return the scale of each parameter, a power of two: fp64 [parameters].

        Products with fp32 gradients are exact in fp32, which holds up to 2^127.
        """
        exponents = self.bits - HEADROOM_BITS - self.exponents[name]
        return torch.exp2(exponents.clamp(-120, 120))

    @torch.no_grad()
    def _add(self, name: str) -> None:
        """Add the gradients of network `name` to its integer sums, and clear them."""
        own = self.buckets[name]
        fresh = name not in self.sums
        if fresh:
            elements = own[-1].begin + sum(own[-1].sizes)
            device = self.exponents[name].device
            self.sums[name] = torch.empty(elements + 1, dtype=torch.int64, device=device)
            self.sums[name][-1] = 0
        sums = self.sums[name]
        scales = self._scales(name)
        limit = 2.0**self.bits

        for bucket in own:
            x = _taken_gradients(bucket, name)
            bucket.multiply(x, scales)
            low, high = torch.aminmax(x.round_())
            sums[-1] += ~((low > -limit) & (high < limit))  # a NaN makes both NaN
            x.nan_to_num_(0.0, 0.0, 0.0).clamp_(-limit, limit)
            if fresh:
                bucket.of(sums).copy_(x)
            else:
                bucket.of(sums).add_(x.to(torch.int64))

    @torch.no_grad()
    def finish(self, name: str) -> None:
        """Sum over the workers and write the mean over the micro-batches to `.grad`.

        A collective call.
        """
        sums = self.sums.pop(name)
        scales = self._scales(name)
        if world_size() > 1:
            dist.all_reduce(sums)

        largest: list[Tensor] = []
        for bucket in self.buckets[name]:
            totals = bucket.of(sums).double()
            largest += torch._foreach_max(totals.abs().split(bucket.sizes))
            bucket.multiply(totals, 1 / scales)
            means = totals.div_(self.G).float()
            for p, mean in zip(bucket.parameters, means.split(bucket.sizes), strict=True):
                p.grad = mean.view_as(p)

        # an overflow shows in the gradient's norm
        first = self.buckets[name][0].parameters[0]
        assert first.grad is not None
        first.grad = torch.where(sums[-1] > 0, torch.nan, first.grad)

        # a gradient of zero says nothing about the next one's size
        magnitude = torch.stack(largest) / scales
        self.exponents[name] = torch.where(
            magnitude > 0, torch.ceil(torch.log2(magnitude)), self.exponents[name]
        )

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Return the exponents of each network's parameters, by name.

        By name, since the run may freeze other parameters when it resumes.
        """
        return {
            name: dict(zip(keys, self.exponents[name].tolist(), strict=True))
            for name, keys in self.keys.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Restore the exponents.

        The state may lack some of the networks, or all if it was written with another reduction.
        """
        for name, keys in self.keys.items():
            values = [state.get(name, {}).get(key, 0.0) for key in keys]
            self.exponents[name] = self.exponents[name].new_tensor(values)


def _taken_gradients(bucket: Bucket, name: str) -> Tensor:
    """Return a bucket's gradients as one tensor [elements], and clear them."""
    gradients = []
    for p in bucket.parameters:
        assert p.grad is not None, f"a parameter of network {name} takes no part in its loss"
        gradients.append(p.grad.flatten())
        p.grad = None
    return torch.cat(gradients)


Reduction = FastReduction | ExactReduction
