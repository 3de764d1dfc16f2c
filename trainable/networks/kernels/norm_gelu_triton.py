"""The Triton kernels of `trainable.networks.kernels.norm_gelu`, a few columns per program."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainable.networks.kernels.norm_gelu import result_type

ROOT_HALF = tl.constexpr(math.sqrt(0.5))
DENSITY = tl.constexpr(1 / math.sqrt(2 * math.pi))  # of the normal distribution at 0
COLUMNS = 8


@triton.jit
def _load(pointer, i, c, t, s_b, s_c, s_t, there, dtype: tl.constexpr):
    """Read a tile [P, N] of item i, zero where it ends."""
    where = pointer + i.to(tl.int64) * s_b + c * s_c + t * s_t
    return tl.load(where, mask=there, other=0.0).to(dtype)


@triton.jit
def _tile(T, C: tl.constexpr, P: tl.constexpr, N: tl.constexpr):
    """Return the item, the channels [P, 1] and times [1, N] of this program, and what is there."""
    t = (tl.program_id(1) * N + tl.arange(0, N))[None, :]
    c = tl.arange(0, P)[:, None]
    return tl.program_id(0), c, t, (c < C) & (t < T)


@triton.jit
def _of_channels(pointer, c, C: tl.constexpr, dtype: tl.constexpr):
    """Read a value per channel: [P, 1]."""
    return tl.load(pointer + c, mask=c < C, other=0.0).to(dtype)


@triton.jit
def _normed(x, channels, eps, C: tl.constexpr):
    """Return x [P, N] normed over its channels, and one over the deviation [1, N]."""
    mean = tl.sum(x, axis=0)[None, :] / C
    centred = tl.where(channels, x - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0)[None, :] / C + eps)
    return centred * scale, scale


@triton.jit
def _forward_kernel(
    x_ptr,
    bias_ptr,
    gamma_ptr,
    beta_ptr,
    residual_ptr,
    mask_ptr,
    out_ptr,
    T,
    x_b,
    x_c,
    x_t,
    r_b,
    r_c,
    r_t,
    m_b,
    m_t,
    eps: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    MASK: tl.constexpr,
    dtype: tl.constexpr,
):
    i, c, t, there = _tile(T, C, P, N)
    x = _load(x_ptr, i, c, t, x_b, x_c, x_t, there, dtype)
    if BIAS:
        x += _of_channels(bias_ptr, c, C, dtype)
    normed, _scale = _normed(x, c < C, eps, C)
    gamma = _of_channels(gamma_ptr, c, C, dtype)
    normed = gamma * normed + _of_channels(beta_ptr, c, C, dtype)
    out = 0.5 * normed * (1.0 + tl.erf(normed * ROOT_HALF))
    if RESIDUAL:
        out += _load(residual_ptr, i, c, t, r_b, r_c, r_t, there, dtype)
    if MASK:
        out *= _load(mask_ptr, i, 0, t, m_b, 0, m_t, t < T, dtype)
    tl.store(out_ptr + (i.to(tl.int64) * C + c) * T + t, out, mask=there)


@triton.jit
def _backward_kernel(
    x_ptr,
    bias_ptr,
    gamma_ptr,
    beta_ptr,
    mask_ptr,
    to_ptr,
    of_x_ptr,
    of_residual_ptr,
    sums_ptr,
    T,
    x_b,
    x_c,
    x_t,
    m_b,
    m_t,
    g_b,
    g_c,
    g_t,
    eps: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    MASK: tl.constexpr,
    dtype: tl.constexpr,
):
    i, c, t, there = _tile(T, C, P, N)
    x = _load(x_ptr, i, c, t, x_b, x_c, x_t, there, dtype)
    if BIAS:
        x += _of_channels(bias_ptr, c, C, dtype)
    normed, scale = _normed(x, c < C, eps, C)
    gamma = _of_channels(gamma_ptr, c, C, dtype)
    shifted = gamma * normed + _of_channels(beta_ptr, c, C, dtype)

    to = _load(to_ptr, i, c, t, g_b, g_c, g_t, there, dtype)
    if MASK:
        to *= _load(mask_ptr, i, 0, t, m_b, 0, m_t, t < T, dtype)
    at = (i.to(tl.int64) * C + c) * T + t
    if RESIDUAL:
        tl.store(of_residual_ptr + at, to, mask=there)

    share = 0.5 * (1.0 + tl.erf(shifted * ROOT_HALF))
    of_shifted = to * (share + shifted * DENSITY * tl.exp(-0.5 * shifted * shifted))
    of_normed = of_shifted * gamma
    along = tl.sum(of_normed * normed, axis=0)[None, :] / C
    of_x = scale * (of_normed - tl.sum(of_normed, axis=0)[None, :] / C - normed * along)
    of_x = tl.where(there, of_x, 0.0)
    tl.store(of_x_ptr + at, of_x, mask=there)

    row = tl.arange(0, P)
    sums = sums_ptr + (i * tl.num_programs(1) + tl.program_id(1)) * 3 * C + row
    tl.store(sums, tl.sum(of_x, axis=1), mask=row < C)
    tl.store(sums + C, tl.sum(of_shifted * normed, axis=1), mask=row < C)
    tl.store(sums + 2 * C, tl.sum(of_shifted, axis=1), mask=row < C)


def _sizes(x: Tensor) -> dict[str, int | tl.dtype]:
    dtype = tl.float64 if x.dtype == torch.float64 else tl.float32
    return {"C": x.size(1), "P": triton.next_power_of_2(x.size(1)), "N": COLUMNS, "dtype": dtype}


def _strides(mask: Tensor | None) -> tuple[int, int]:
    return (0, 0) if mask is None else (mask.stride(0), mask.stride(2))


def forward(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> Tensor:
    """Compute `norm_gelu.norm_gelu`."""
    B, _, T = x.shape
    out = x.new_empty(x.shape, dtype=result_type(x, residual))
    added = x if residual is None else residual
    _forward_kernel[(B, triton.cdiv(T, COLUMNS))](
        x,
        bias,
        gamma,
        beta,
        added,
        mask,
        out,
        T,
        *x.stride(),
        *added.stride(),
        *_strides(mask),
        eps=eps,
        **_sizes(x),
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        MASK=mask is not None,
    )
    return out


def backward(
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
    """Compute the gradients of x, the residual, and bias, gamma and beta."""
    assert not kept
    B, C, T = x.shape
    of_x, of_residual = x.new_empty(x.shape), to.new_empty(to.shape if residual else 0)
    blocks = triton.cdiv(T, COLUMNS)
    sums = gamma.new_empty(B * blocks, 3, C)
    _backward_kernel[(B, blocks)](
        x,
        bias,
        gamma,
        beta,
        mask,
        to,
        of_x,
        of_residual,
        sums,
        T,
        *x.stride(),
        *_strides(mask),
        *to.stride(),
        eps=eps,
        **_sizes(x),
        BIAS=bias is not None,
        RESIDUAL=residual,
        MASK=mask is not None,
    )
    return of_x, of_residual, sums.sum(0)
