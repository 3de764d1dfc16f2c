"""Layer normalisation over the channels, then GELU, as one operator, and what stands around them.

    out = (residual + gelu(gamma * normed(x + bias) + beta)) * mask

On a GPU the forward pass is one Triton kernel, and the backward pass is two: the second one sums
the gradients of the parameters. Layer normalisation: Ba et al., 2016, arXiv:1607.06450; GELU:
Hendrycks and Gimpel, 2016, arXiv:1606.08415, with the error function.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.networks.kernels.support import operator


def norm_gelu_in_torch(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, list[Tensor]]:
    """Compute `norm_gelu` with the channels last; and what its backward pass needs."""
    last = _shifted(x, bias, gamma)
    normed, mean, scale = torch.native_layer_norm(last, [last.size(-1)], gamma, beta, eps)
    out = F.gelu(normed).transpose(1, 2)
    if residual is not None:
        out = residual + out
    if mask is not None:
        out = out * mask
    return out.to(result_type(x, residual)), [normed, mean, scale]


def _shifted(x: Tensor, bias: Tensor | None, gamma: Tensor) -> Tensor:
    """Return x + bias, channels last, in the type of gamma: a GPU norms no mix of types."""
    last = x.transpose(1, 2).to(gamma.dtype)
    return last if bias is None else last + bias


def norm_gelu_backward_in_torch(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None,
    to: Tensor,
    residual: bool,
    eps: float,
    kept: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, a residual [B, C, T], and of bias, gamma and beta, [3, C]."""
    normed, mean, scale = kept
    of_residual = to if mask is None else to * mask
    of_normed = torch.ops.aten.gelu_backward(of_residual.transpose(1, 2).to(normed.dtype), normed)
    last = _shifted(x, bias, gamma)
    of_last, of_gamma, of_beta = torch.ops.aten.native_layer_norm_backward(
        of_normed, last, [last.size(-1)], mean, scale, gamma, beta, [True] * 3
    )
    of_bias = torch.zeros_like(of_beta) if bias is None else of_last.sum([0, 1])
    of_parameters = torch.stack([of_bias.to(of_beta.dtype), of_gamma, of_beta])
    if not residual:
        of_residual = to.new_empty(0)
    elif mask is None:
        of_residual = to.clone()  # an operator's result is no input of it
    return of_last.to(x.dtype).transpose(1, 2), of_residual.to(to.dtype), of_parameters


def _forward_in_triton(x: Tensor, *args: Any) -> tuple[Tensor, list[Tensor]]:
    from trainable.networks.kernels.norm_gelu_triton import forward

    return forward(x, *args), []


def _forward_shapes(
    x: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor, residual: Tensor | None, *_: Any
) -> tuple[Tensor, list[Tensor]]:
    return x.new_empty(x.shape, dtype=result_type(x, residual)), []


def _backward_in_triton(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    from trainable.networks.kernels.norm_gelu_triton import backward

    return backward(x, *args)


def _backward_shapes(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None,
    to: Tensor,
    residual: bool,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    of_residual = to.new_empty(to.shape if residual else 0)
    return x.new_empty(x.shape), of_residual, gamma.new_empty(3, x.size(1))


FORWARD = operator(
    "norm_gelu(Tensor x, Tensor? bias, Tensor gamma, Tensor beta, Tensor? residual, Tensor? mask,"
    " float eps) -> (Tensor, Tensor[])",
    norm_gelu_in_torch,
    _forward_in_triton,
    _forward_shapes,
)
BACKWARD = operator(
    "norm_gelu_backward(Tensor x, Tensor? bias, Tensor gamma, Tensor beta, Tensor? mask, Tensor to,"
    " bool residual, float eps, Tensor[] kept) -> (Tensor, Tensor, Tensor)",
    norm_gelu_backward_in_torch,
    _backward_in_triton,
    _backward_shapes,
)


class _NormGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        out, kept = FORWARD(*inputs)
        x, bias, gamma, beta, residual, mask, ctx.eps = inputs
        ctx.has_residual = residual is not None
        ctx.save_for_backward(x, bias, gamma, beta, mask, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, to: Tensor) -> tuple[Any, ...]:
        x, bias, gamma, beta, mask, *kept = ctx.saved_tensors
        of_x, of_residual, of_parameters = BACKWARD(
            x, bias, gamma, beta, mask, to, ctx.has_residual, ctx.eps, kept
        )
        of_bias, of_gamma, of_beta = of_parameters.unbind(0)
        return (
            of_x,
            None if bias is None else of_bias,
            of_gamma,
            of_beta,
            of_residual if ctx.has_residual else None,
            None,
            None,
        )


def result_type(x: Tensor, residual: Tensor | None) -> torch.dtype:
    """Return the type of the result: that of the sum it stands in."""
    return x.dtype if residual is None else residual.dtype


def norm_gelu(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the channels, and apply GELU.

    Half precision is computed in fp32.

    Args:
        x: [B, C, T].
        bias: [C], of the convolution before; None if x has it.
        gamma: [C] factor of the normed values.
        beta: [C] added to them.
        residual: [B, C, T] added to the result, or None.
        mask: [B, 1, T] factor of the result, or None; takes no gradient.
        eps: added to the variance.

    Returns:
        [B, C, T] in the type of residual, or else of x.
    """
    inputs = x, bias, gamma, beta, residual, mask, eps
    if torch.compiler.is_exporting():  # a file for others holds no operators of ours
        return norm_gelu_in_torch(*inputs)[0]
    return _NormGelu.apply(*inputs)
