"""What follows a convolution, as one kernel: its bias, a residual, and a leaky ReLU.

total = x + bias + residual,  activated = total where total > 0, else slope * total
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.networks.kernels.support import operator


def add_bias_in_torch(
    x: Tensor, bias: Tensor, residual: Tensor | None, slope: float, both: bool
) -> tuple[Tensor, Tensor]:
    """Return activated, and total (empty unless both are asked for), in the type of x."""
    total = x + bias.to(x.dtype).view(-1, *[1] * (x.dim() - 2))
    if residual is not None:
        total = total + residual.to(x.dtype)
    activated = F.leaky_relu(total, slope) if slope != 1.0 else total
    return activated, total.clone() if both else x.new_empty(0)


def add_bias_backward_in_torch(
    to: Tensor, to_total: Tensor | None, activated: Tensor, slope: float
) -> Tensor:
    """Return the gradient of x, which is that of the residual, too."""
    found = torch.where(activated > 0, to, slope * to)
    return found if to_total is None else found + to_total


def _in_triton(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    from trainable.networks.kernels.convolutions.bias_triton import forward

    return forward(x, *args)


def _shapes(
    x: Tensor, bias: Tensor, residual: Tensor | None, slope: float, both: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape if both else 0)


def _backward_in_triton(to: Tensor, *args: Any) -> Tensor:
    from trainable.networks.kernels.convolutions.bias_triton import backward

    return backward(to, *args)


ADD = operator(
    "add_bias(Tensor x, Tensor bias, Tensor? residual, float slope, bool both) -> (Tensor, Tensor)",
    add_bias_in_torch,
    _in_triton,
    _shapes,
)
ADD_BACKWARD = operator(
    "add_bias_backward(Tensor to, Tensor? to_total, Tensor activated, float slope) -> Tensor",
    add_bias_backward_in_torch,
    _backward_in_triton,
    lambda to, *_: to.new_empty(to.shape),
)


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, residual: Tensor | None, slope: float, both: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.slope, ctx.both, ctx.has_residual = slope, both, residual is not None
        given = x.contiguous(), bias, None if residual is None else residual.contiguous()
        activated, total = ADD(*given, slope, both)
        ctx.save_for_backward(activated)
        if not both:
            ctx.mark_non_differentiable(total)
        return activated, total

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> tuple[Tensor | None, ...]:
        (activated,) = ctx.saved_tensors
        total = to[1].contiguous() if ctx.both else None
        found = ADD_BACKWARD(to[0].contiguous(), total, activated, ctx.slope)
        of_bias = None
        if ctx.needs_input_grad[1]:
            of_bias = found.sum([0, *range(2, found.dim())])
        return found, of_bias, found if ctx.has_residual else None, None, None


def add_bias(x: Tensor, bias: Tensor, slope: float = 1.0, residual: Tensor | None = None) -> Tensor:
    """Return activated: [B, C, ...] in the type of x.

    Args:
        x: [B, C, ...].
        bias: [C].
        slope: of the leaky ReLU; 1 is the identity.
        residual: [B, C, ...], or None.
    """
    return _AddBias.apply(x, bias, residual, slope, False)[0]


def add_bias_to_both(
    x: Tensor, bias: Tensor, slope: float, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Return activated and total; see `add_bias`."""
    return _AddBias.apply(x, bias, residual, slope, True)
