"""Attention with relative positions as few kernels: what `layers.attentions` computes on a GPU.

Of scores S = Q K^T and near = Q R_k^T (R_k, R_v: embeddings of the positions from -window to
window, Shaw et al., 2018, arXiv:1803.02155), both made without the scale, an operator of ours
computes

    P = softmax(scale * (S + square(near))),  D = P * keep / (1 - p),  band = band(D)

where `square` writes the values of a band along the diagonals of a matrix and `band` reads them.
The result is D V + band R_v.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.networks.kernels.support import operator

MASKED_SCORE = -1e4  # fits fp16; exp of it is 0


def band_to_square(band: Tensor, window: int) -> Tensor:
    """Write per-row diagonals into a square matrix.

    out[i, j] = band[i, j - i + window], and 0 outside the window.

    Args:
        band: [B, H, T, 2 * window + 1].
        window: half width of the band.

    Returns:
        [B, H, T, T].
    """
    length = band.size(2)
    width = length + 2 * window
    # rows of width + 1 read as rows of width: each row moves one to the right of the row before
    rows = F.pad(band, (0, length)).flatten(2)[..., : length * width]
    return rows.unflatten(2, (length, width))[..., window : window + length]


def square_to_band(square: Tensor, window: int) -> Tensor:
    """Read the diagonals of a square matrix, the inverse of `band_to_square` inside the window.

    Args:
        square: [B, H, T, T].
        window: half width of the band.

    Returns:
        [B, H, T, 2 * window + 1], 0 where the diagonal leaves the matrix.
    """
    length = square.size(2)
    width = length + 2 * window
    # rows of width read as rows of width + 1: each row moves one to the left of the row before
    rows = F.pad(square, (window, window, 0, 1)).flatten(2)[..., : length * (width + 1)]
    return rows.unflatten(2, (length, width + 1))[..., : 2 * window + 1]


def softmax_in_torch(
    scores: Tensor, near: Tensor, padding: Tensor, keep: Tensor | None, p: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return P and D [B, H, T, T] (one and the same without dropout) and band [B, H, T, W]."""
    window = near.size(-1) // 2
    scores = scale * (scores + band_to_square(near, window))
    scores = scores.masked_fill(padding.unsqueeze(1), MASKED_SCORE)
    weights = torch.softmax(scores, dim=-1)
    dropped = weights.clone() if keep is None else weights * keep / (1 - p)
    return weights, dropped, square_to_band(dropped, window).contiguous()


def softmax_backward_in_torch(
    to: Tensor,
    to_band: Tensor,
    weights: Tensor,
    padding: Tensor,
    keep: Tensor | None,
    p: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of scores [B, H, T, T] and near [B, H, T, W].

    Args:
        to: gradient of D [B, H, T, T].
        to_band: gradient of band [B, H, T, W].
        weights: P [B, H, T, T].
        padding: [B, 1, T] bool.
        keep: [B, H, T, T] bool, what dropout kept; None without dropout.
        p: probability of dropout.
        scale: factor of the scores.
    """
    window = to_band.size(-1) // 2
    to = to + band_to_square(to_band, window)
    if keep is not None:
        to = to * keep / (1 - p)
    product = weights * to
    of_scores = scale * (product - weights * product.sum(-1, keepdim=True))
    of_scores = of_scores.masked_fill(padding.unsqueeze(1), 0.0)
    return of_scores, square_to_band(of_scores, window).contiguous()


def _softmax_in_triton(scores: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    from trainable.networks.kernels.attention_triton import forward

    return forward(scores, *args)


def _softmax_shapes(scores: Tensor, near: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(scores), torch.empty_like(scores), torch.empty_like(near)


def _softmax_backward_in_triton(to: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    from trainable.networks.kernels.attention_triton import backward

    return backward(to, *args)


def _softmax_backward_shapes(to: Tensor, to_band: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(to), torch.empty_like(to_band)


SOFTMAX = operator(
    "relative_softmax(Tensor scores, Tensor near, Tensor padding, Tensor? keep, float p,"
    " float scale) -> (Tensor, Tensor, Tensor)",
    softmax_in_torch,
    _softmax_in_triton,
    _softmax_shapes,
)
SOFTMAX_BACKWARD = operator(
    "relative_softmax_backward(Tensor to, Tensor to_band, Tensor weights, Tensor padding,"
    " Tensor? keep, float p, float scale) -> (Tensor, Tensor)",
    softmax_backward_in_torch,
    _softmax_backward_in_triton,
    _softmax_backward_shapes,
)


class RelativeAttention(torch.autograd.Function):
    """The heads of self-attention, from their projections to what they heard.

    `apply` takes projected [B, 3 * C, T], query, key and value without their bias [3 * C]; R_k and
    R_v [2 * window + 1, C / H]; padding [B, 1, T], bool; the number of heads; and p, the
    probability of dropout. It returns [B, C, T].
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        bias: Tensor,
        rel_k: Tensor,
        rel_v: Tensor,
        padding: Tensor,
        heads: int,
        p: float,
    ) -> Tensor:
        """Compute what the heads heard."""
        B, channels, T = projected.shape
        size = channels // 3 // heads
        dtype = projected.dtype
        rel_k, rel_v = rel_k.to(dtype), rel_v.to(dtype)
        with torch.autocast(projected.device.type, enabled=False):
            parts = projected.new_empty(3, B, heads, T, size)
            by_head = projected.unflatten(1, (3, heads, size)).permute(1, 0, 2, 4, 3)
            bias = bias.to(dtype).unflatten(0, (3, 1, heads, 1, size))
            torch.add(by_head, bias, out=parts)
            query, key, value = parts.flatten(1, 2).unbind(0)

            scores = torch.bmm(query, key.transpose(1, 2)).unflatten(0, (B, heads))
            near = torch.mm(query.flatten(0, 1), rel_k.t()).unflatten(0, (B, heads, T))
            keep = None
            if p > 0:
                keep = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
                keep.bernoulli_(1 - p)
            ctx.p, ctx.scale = p, size**-0.5
            weights, dropped, band = SOFTMAX(scores, near, padding, keep, p, ctx.scale)
            heard = torch.bmm(dropped.flatten(0, 1), value).flatten(0, 1)
            heard.addmm_(band.flatten(0, 2), rel_v)
        ctx.save_for_backward(parts, weights, dropped, band, padding, keep, rel_k, rel_v)
        return heard.unflatten(0, (B, heads, T)).transpose(2, 3).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the projections, the bias, R_k and R_v."""
        parts, weights, dropped, band, padding, keep, rel_k, rel_v = ctx.saved_tensors
        _, B, heads, T, size = parts.shape
        query, key, value = parts.flatten(1, 2).unbind(0)
        to = gradients[0].unflatten(1, (heads, size)).transpose(2, 3).reshape(-1, size)
        to_heads = to.unflatten(0, (B * heads, T))

        of_parts = torch.empty_like(parts)
        of_query, of_key, of_value = of_parts.flatten(1, 2).unbind(0)
        torch.bmm(dropped.flatten(0, 1).transpose(1, 2), to_heads, out=of_value)
        to_dropped = torch.bmm(to_heads, value.transpose(1, 2)).unflatten(0, (B, heads))
        to_band = torch.mm(to, rel_v.t()).unflatten(0, (B, heads, T))
        of_rel_v = torch.mm(band.flatten(0, 2).t(), to)

        of_scores, of_near = SOFTMAX_BACKWARD(
            to_dropped, to_band, weights, padding, keep, ctx.p, ctx.scale
        )
        of_scores, of_near = of_scores.flatten(0, 1), of_near.flatten(0, 2)
        torch.bmm(of_scores, key, out=of_query)
        of_query.flatten(0, 1).addmm_(of_near, rel_k)
        torch.bmm(of_scores.transpose(1, 2), query, out=of_key)
        of_rel_k = torch.mm(of_near.t(), query.flatten(0, 1))

        # [3, B, H, T, size] -> [B, 3 * C, T]
        of_projected = of_parts.permute(1, 0, 2, 4, 3).flatten(1, 3)
        return of_projected, of_projected.sum((0, 2)), of_rel_k, of_rel_v, None, None, None
