"""The two Triton kernels of `trainable.networks.kernels.attention`, a row of scores per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

MASKED_SCORE = tl.constexpr(-1e4)


@triton.jit
def _of_band(band_ptr, row, i, j, W: tl.constexpr, there, dtype: tl.constexpr):
    """Read what a band [rows, W] says of columns j in row i, 0 outside of it."""
    k = j - i + W // 2
    return tl.load(band_ptr + row * W + k, mask=there & (k >= 0) & (k < W), other=0.0).to(dtype)


@triton.jit
def _to_band(band_ptr, values, row, i, j, T, W: tl.constexpr, P: tl.constexpr):
    """Write values of columns j in row i to a band, and 0 where it leaves the matrix."""
    k = j - i + W // 2
    tl.store(band_ptr + row * W + k, values, mask=(j < T) & (k >= 0) & (k < W))
    k = tl.arange(0, P)
    column = i + k - W // 2
    tl.store(band_ptr + row * W + k, 0.0, mask=(k < W) & ((column < 0) | (column >= T)))


@triton.jit
def _row(T, N: tl.constexpr):
    """Return this program's row, its place in its matrix, the columns, which exist, and where."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, N)
    return row, (row % T).to(tl.int32), j, j < T, row * T + j


@triton.jit
def _dropped(values, keep_ptr, at, there, factor: tl.constexpr):
    """Return values times factor where they are kept, else 0."""
    kept = tl.load(keep_ptr + at, mask=there, other=0) != 0
    return tl.where(kept, values * factor, 0.0)


@triton.jit
def _forward_kernel(
    scores_ptr,
    near_ptr,
    padding_ptr,
    keep_ptr,
    weights_ptr,
    dropped_ptr,
    band_ptr,
    T,
    rows_of_item,
    m_b,
    m_t,
    factor: tl.constexpr,
    scale: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    DROP: tl.constexpr,
    dtype: tl.constexpr,
):
    row, i, j, there, at = _row(T, N)
    scores = tl.load(scores_ptr + at, mask=there, other=0.0).to(dtype)
    scores = scale * (scores + _of_band(near_ptr, row, i, j, W, there, dtype))
    inside = tl.load(padding_ptr + row // rows_of_item * m_b + j * m_t, mask=there, other=1) == 0
    scores = tl.where(inside, scores, MASKED_SCORE)
    scores = tl.where(there, scores, float("-inf"))
    powers = tl.exp(scores - tl.max(scores, axis=0))
    weights = powers / tl.sum(powers, axis=0)
    tl.store(weights_ptr + at, weights, mask=there)
    if DROP:
        weights = _dropped(weights, keep_ptr, at, there, factor)
    tl.store(dropped_ptr + at, weights, mask=there)
    _to_band(band_ptr, weights, row, i, j, T, W, P)


@triton.jit
def _backward_kernel(
    to_ptr,
    to_band_ptr,
    weights_ptr,
    padding_ptr,
    keep_ptr,
    of_scores_ptr,
    of_near_ptr,
    T,
    rows_of_item,
    m_b,
    m_t,
    factor: tl.constexpr,
    scale: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    DROP: tl.constexpr,
    dtype: tl.constexpr,
):
    row, i, j, there, at = _row(T, N)
    to = tl.load(to_ptr + at, mask=there, other=0.0).to(dtype)
    to += _of_band(to_band_ptr, row, i, j, W, there, dtype)
    if DROP:
        to = _dropped(to, keep_ptr, at, there, factor)
    weights = tl.load(weights_ptr + at, mask=there, other=0.0).to(dtype)
    product = weights * to
    of_scores = scale * (product - weights * tl.sum(product, axis=0))
    inside = tl.load(padding_ptr + row // rows_of_item * m_b + j * m_t, mask=there, other=1) == 0
    of_scores = tl.where(inside, of_scores, 0.0)
    tl.store(of_scores_ptr + at, of_scores, mask=there)
    _to_band(of_near_ptr, of_scores, row, i, j, T, W, P)


def _sizes(scores: Tensor, band: Tensor, padding: Tensor, keep: Tensor | None, p: float) -> dict:
    _, heads, T, W = band.shape
    return {
        "T": T,
        "rows_of_item": heads * T,
        "m_b": padding.stride(0),
        "m_t": padding.stride(2),
        "factor": 1 / (1 - p),
        "W": W,
        "P": triton.next_power_of_2(W),
        "N": triton.next_power_of_2(T),
        "DROP": keep is not None,
        "dtype": tl.float64 if scores.dtype == torch.float64 else tl.float32,
    }


def forward(
    scores: Tensor, near: Tensor, padding: Tensor, keep: Tensor | None, p: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `attention.softmax_in_torch`."""
    weights, dropped, band = map(torch.empty_like, (scores, scores, near))
    _forward_kernel[(band.numel() // band.size(-1),)](
        scores,
        near,
        padding,
        keep,
        weights,
        dropped,
        band,
        scale=scale,
        **_sizes(scores, near, padding, keep, p),
    )
    return weights, dropped, band


def backward(
    to: Tensor,
    to_band: Tensor,
    weights: Tensor,
    padding: Tensor,
    keep: Tensor | None,
    p: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute `attention.softmax_backward_in_torch`."""
    of_scores, of_near = torch.empty_like(to), torch.empty_like(to_band)
    _backward_kernel[(to_band.numel() // to_band.size(-1),)](
        to,
        to_band,
        weights,
        padding,
        keep,
        of_scores,
        of_near,
        scale=scale,
        **_sizes(to, to_band, padding, keep, p),
    )
    return of_scores, of_near
