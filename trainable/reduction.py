"""How the gradients of a global step's G micro-batches become one mean on all workers.

`fast` is DistributedDataParallel's own all-reduce, overlapped with the backward pass; its floating-point sum depends on
the number of workers in the last bits. `exact` adds integers, and integer sums do not depend on their order: every
gradient is rounded to an int64 on a per-tensor power-of-two scale that is part of the training state, so that the mean
has the same bits for every world size.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

HEADROOM_BITS = 20  # a gradient may grow by 2^20 from one step to the next before `exact` reports an overflow


def unwrapped(net: nn.Module) -> nn.Module:
    """The network itself: at world size 1 prepare_model adds no wrapper."""
    return getattr(net, "module", net)


def world_size() -> int:
    """Workers of the process group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_rows(own: Mapping[int, Tensor], rows: int, width: int, device: torch.device) -> Tensor:
    """The rows of all workers as one float64 [rows, width]: each worker gives its own {row: [width]}.

    Every entry is one value plus zeros, so that the result does not depend on who held what.
    """
    table = torch.zeros(rows, width, dtype=torch.float64, device=device)
    for row, values in own.items():
        table[row] = values
    if world_size() > 1:
        dist.all_reduce(table)
    return table


class FastReduction:
    """DDP's own mean over workers, weighted so that it is the mean over micro-batches for uneven shares too."""

    def __init__(self, micro_batches_per_step: int):
        self.loss_scale = world_size() / micro_batches_per_step
        # DDP's networks must be used in the same order on all workers: keep the graph on all of them or on none. In an
        # uneven step a worker that could keep it would only wait for the others.
        self.keeps_graph = world_size() == micro_batches_per_step

    def module(self, net: nn.Module) -> nn.Module:
        """What a forward pass that trains `net` goes through: DDP's wrapper."""
        return net

    @contextlib.contextmanager
    def micro_batch(self, nets: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        """Forward and backward passes through `nets`; only those of a worker's last micro-batch communicate."""
        with contextlib.ExitStack() as stack:
            for net in nets.values():
                if not last and isinstance(net, DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            yield

    def finish(self, name: str) -> None:
        """The gradients of network `name` are complete: nothing is left to do, DDP has reduced them."""

    def state_dict(self) -> dict[str, dict[str, float]]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """No state."""


class ExactReduction:
    """Order-independent sums: int64 on a per-tensor power-of-two scale (see the module's docstring).

    The scale of a tensor follows the largest magnitude that its sum had in the step before, and is kept in the
    checkpoint. Values that are not finite, or past the head-room, are counted in `overflow`, summed over all workers
    alike, never wrapped.
    """

    def __init__(self, micro_batches_per_step: int, nets: Mapping[str, nn.Module]):
        self.loss_scale = 1.0
        self.keeps_graph = True
        self.G = micro_batches_per_step
        named = {name: dict(unwrapped(net).named_parameters()) for name, net in nets.items()}
        self.keys = {name: [key for key, p in own.items() if p.requires_grad] for name, own in named.items()}
        self.trainable = {name: [named[name][key] for key in keys] for name, keys in self.keys.items()}
        self.exponents = {
            name: torch.zeros(len(own), dtype=torch.float64, device=own[0].device)
            for name, own in self.trainable.items()
        }
        self.sums: dict[str, list[Tensor]] = {}
        self.overflow = {
            name: torch.zeros((), dtype=torch.int64, device=own[0].device) for name, own in self.trainable.items()
        }

    def module(self, net: nn.Module) -> nn.Module:
        """What a forward pass that trains `net` goes through: the network itself, DDP would add up floats."""
        return unwrapped(net)

    @contextlib.contextmanager
    def micro_batch(self, nets: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        """Forward and backward passes; the gradients join the integer sums and leave `.grad` empty."""
        yield
        for name in nets:
            self._add(name)

    def _scales(self, name: str) -> tuple[Tensor, ...]:
        # 61 bits below the sign and its carry; the sum of G values must fit
        bits = 61 - HEADROOM_BITS - (self.G - 1).bit_length()
        return torch.exp2(bits - self.exponents[name]).unbind()

    @torch.no_grad()
    def _add(self, name: str) -> None:
        limit = 2.0 ** (61 - (self.G - 1).bit_length())
        scales, integers = self._scales(name), []
        for p, scale in zip(self.trainable[name], scales, strict=True):
            assert p.grad is not None, f"a parameter of network {name} takes no part in its loss"
            x = p.grad.double().mul_(scale).round_()
            self.overflow[name] += (~(x.abs() < limit)).sum()
            integers.append(x.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0).clamp_(-limit, limit).to(torch.int64))
            p.grad = None
        if name in self.sums:
            torch._foreach_add_(self.sums[name], integers)
        else:
            self.sums[name] = integers

    @torch.no_grad()
    def finish(self, name: str) -> None:
        """Sum over the workers and write the mean over the micro-batches to `.grad`."""
        parameters, sums = self.trainable[name], self.sums.pop(name)
        flat = torch.cat([*(s.flatten() for s in sums), self.overflow[name].reshape(1)])
        if world_size() > 1:
            dist.all_reduce(flat)
        self.overflow[name] = flat[-1]
        totals = [t.double() for t in flat[:-1].split([p.numel() for p in parameters])]
        scales = self._scales(name)
        largest = torch.stack(torch._foreach_norm(totals, float("inf"))) / torch.stack(scales)
        for p, total, scale in zip(parameters, totals, scales, strict=True):
            p.grad = total.div_(scale * self.G).to(p.dtype).view_as(p)
        self.exponents[name] = torch.where(largest > 0, torch.ceil(torch.log2(largest)), self.exponents[name])

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Exponents of each network's parameters, by name: another run may freeze others."""
        return {name: dict(zip(keys, self.exponents[name].tolist(), strict=True)) for name, keys in self.keys.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Restore the exponents."""
        for name, exponents in state.items():
            values = [exponents.get(key, 0.0) for key in self.keys[name]]
            self.exponents[name] = self.exponents[name].new_tensor(values)


Reduction = FastReduction | ExactReduction
