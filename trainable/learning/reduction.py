"""How the gradients of a global step's G micro-batches become one mean on all workers.

`fast` is DistributedDataParallel's own all-reduce; its floating-point sum depends on the number of
workers in the last bits. `exact` adds integers, so that the mean has the same bits for every number
of workers (trainable/distributed/exact_sums.py). Both send while the backward pass goes on.
"""

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainable.distributed.collectives import world_size
from trainable.distributed.exact_sums import ExactSums
from trainable.distributed.wrapping import unwrapped


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


class ExactReduction:
    """Integer sums, over a worker's micro-batches and over the workers.

    Args:
        micro_batches_per_step: G.
        nets: name -> network.
        bucket_mb: MiB of gradients that are sent together.
    """

    def __init__(
        self, micro_batches_per_step: int, nets: Mapping[str, nn.Module], bucket_mb: float
    ):
        self.loss_scale = 1.0
        self.keeps_graph = True
        self.G = micro_batches_per_step
        self.bucket_bytes = bucket_mb * 2**20
        self.trainable = {
            name: {
                f"{name}.{key}": p
                for key, p in unwrapped(net).named_parameters()
                if p.requires_grad
            }
            for name, net in nets.items()
        }
        # by network; those that one backward pass reaches have theirs in common
        self.sums: dict[str, ExactSums] = {}

    def module(self, net: nn.Module) -> nn.Module:
        """Return what a forward pass that trains `net` goes through: the network itself.

        DDP's wrapper would add up floats.
        """
        return unwrapped(net)

    @contextlib.contextmanager
    def micro_batch(self, nets: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        """Surround forward and backward passes; they leave `.grad` empty until `finish`.

        Args:
            nets: the networks that the passes train, by name.
            last: whether this is the worker's last micro-batch of the step.
        """
        sums = self._sums_of(nets)
        if last:
            with sums.sending():
                yield
        else:
            yield
            sums.keep()

    def _sums_of(self, nets: Mapping[str, nn.Module]) -> ExactSums:
        first = next(iter(nets))
        if first not in self.sums:
            parameters = {k: p for name in nets for k, p in self.trainable[name].items()}
            made = ExactSums(parameters, self.G, self.bucket_bytes)
            self.sums |= dict.fromkeys(nets, made)
        return self.sums[first]

    def finish(self, name: str) -> None:
        """Complete the gradients of network `name`, and of those trained with it.

        A collective call.
        """
        self.sums[name].finish()


Reduction = FastReduction | ExactReduction
