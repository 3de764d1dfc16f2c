"""WaveNet's gate as one kernel: tanh(a) * sigmoid(b), a and b halves of x + bias + condition."""

from typing import Any

import torch
from torch import Tensor

from trainable.networks.kernels.support import operator


def gate_in_torch(x: Tensor, shift: Tensor) -> Tensor:
    """Return the gated values [B, C, T] of x [B, 2 * C, T] and shift [B, 2 * C], in x's type."""
    filtered, opened = (x + shift.to(x.dtype).unsqueeze(2)).chunk(2, dim=1)
    return torch.tanh(filtered) * torch.sigmoid(opened)


def gate_backward_in_torch(to: Tensor, x: Tensor, shift: Tensor) -> Tensor:
    """Return the gradient of x [B, 2 * C, T] from that of the gated values [B, C, T]."""
    filtered, opened = (x + shift.to(x.dtype).unsqueeze(2)).chunk(2, dim=1)
    filtered, opened = torch.tanh(filtered), torch.sigmoid(opened)
    of_filtered = to * opened * (1 - filtered.square())
    of_opened = to * filtered * opened * (1 - opened)
    return torch.cat([of_filtered, of_opened], dim=1)


def _in_triton(x: Tensor, shift: Tensor) -> Tensor:
    from trainable.networks.kernels.convolutions.gate_triton import forward

    return forward(x, shift)


def _backward_in_triton(to: Tensor, x: Tensor, shift: Tensor) -> Tensor:
    from trainable.networks.kernels.convolutions.gate_triton import backward

    return backward(to, x, shift)


GATE = operator(
    "gate(Tensor x, Tensor shift) -> Tensor",
    gate_in_torch,
    _in_triton,
    lambda x, shift: x.new_empty(x.size(0), x.size(1) // 2, x.size(2)),
)
GATE_BACKWARD = operator(
    "gate_backward(Tensor to, Tensor x, Tensor shift) -> Tensor",
    gate_backward_in_torch,
    _backward_in_triton,
    lambda to, x, shift: x.new_empty(x.shape),
)


class Gate(torch.autograd.Function):
    """`apply` takes x [B, 2 * C, T] and shift [B, 2 * C], and returns [B, C, T]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor) -> Tensor:
        """Compute the gated values."""
        x, shift = x.contiguous(), shift.contiguous()
        ctx.save_for_backward(x, shift)
        return GATE(x, shift)

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of x and shift."""
        of_x = GATE_BACKWARD(to[0].contiguous(), *ctx.saved_tensors)
        return of_x, of_x.sum(2)
