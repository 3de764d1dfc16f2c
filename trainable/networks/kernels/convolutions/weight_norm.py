"""Weight normalisation of many layers at once: w = g * v / ||v||, per row of the first dimension.

The rows of all layers lie one after the other, so that one kernel normalises them, and another one
differentiates (Salimans and Kingma, 2016, arXiv:1602.07868, equation 3):

    dg = dw . v / ||v||,  dv = g / ||v|| * (dw - v * dg / ||v||)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainable.networks.kernels.support import operator


def rows_in_torch(v: Tensor, g: Tensor, starts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the products [elements] of v [elements] and g [rows].

    Args:
        v: rows of all layers.
        g: [rows].
        starts: int64 [rows + 1], where each row begins, and where the last one ends.
        dtype: type of the result.
    """
    return (v * _each(g / _norms(v, starts), v, starts)).to(dtype)


def rows_backward_in_torch(
    to: Tensor, v: Tensor, g: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of v [elements] and g [rows] from that of the products [elements]."""
    to = to.to(v.dtype)
    norms = _norms(v, starts)
    of_g = torch.segment_reduce(to * v, "sum", lengths=starts.diff()) / norms
    of_v = _each(g / norms, v, starts) * (to - v * _each(of_g / norms, v, starts))
    return of_v, of_g


def _norms(v: Tensor, starts: Tensor) -> Tensor:
    return torch.segment_reduce(v.square(), "sum", lengths=starts.diff()).sqrt()


def _each(of_rows: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    return torch.repeat_interleave(of_rows, starts.diff(), output_size=v.numel())


def _in_triton(v: Tensor, *args: Any) -> Tensor:
    from trainable.networks.kernels.convolutions.weight_norm_triton import forward

    return forward(v, *args)


def _backward_in_triton(to: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    from trainable.networks.kernels.convolutions.weight_norm_triton import backward

    return backward(to, *args)


ROWS = operator(
    "weight_norm(Tensor v, Tensor g, Tensor starts, ScalarType dtype) -> Tensor",
    rows_in_torch,
    _in_triton,
    lambda v, g, starts, dtype: torch.empty_like(v, dtype=dtype),
)
ROWS_BACKWARD = operator(
    "weight_norm_backward(Tensor to, Tensor v, Tensor g, Tensor starts) -> (Tensor, Tensor)",
    rows_backward_in_torch,
    _backward_in_triton,
    lambda to, v, g, starts: (torch.empty_like(v), torch.empty_like(g)),
)


class JoinedWeights(torch.autograd.Function):
    """The weights of layers, computed together.

    `apply` takes starts as `rows_in_torch` does, the type of the weights, and then v of all layers
    and g of all layers. It returns the weights, one per layer, in the shapes of v.
    """

    @staticmethod
    def forward(ctx: Any, starts: Tensor, dtype: torch.dtype, *parts: Tensor) -> tuple[Tensor, ...]:
        """Compute the weights."""
        half = len(parts) // 2
        v, g = _flat(parts[:half]), _flat(parts[half:])
        ctx.shapes = [part.shape for part in parts]
        ctx.save_for_backward(v, g, starts)
        return _pieces(ROWS(v, g, starts, dtype), ctx.shapes[:half])

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of all v and all g."""
        v, g, starts = ctx.saved_tensors
        of_v, of_g = ROWS_BACKWARD(_flat(to), v, g, starts)
        half = len(to)
        pieces = _pieces(of_v, ctx.shapes[:half]) + _pieces(of_g, ctx.shapes[half:])
        return None, None, *pieces


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all elements one after the other."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def _pieces(flat: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Return what was made flat, as views."""
    pieces = flat.split([shape.numel() for shape in shapes])
    return tuple(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))
