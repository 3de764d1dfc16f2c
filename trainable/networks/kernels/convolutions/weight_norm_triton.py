"""The two Triton kernels of the module `weight_norm` beside it, a row per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _forward_kernel(
    v_ptr,
    g_ptr,
    starts_ptr,
    w_ptr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    row = tl.program_id(0)
    begin = tl.load(starts_ptr + row)
    end = tl.load(starts_ptr + row + 1)
    columns = tl.arange(0, BLOCK)
    squares = tl.zeros([BLOCK], dtype)
    at = begin
    while at < end:
        v = tl.load(v_ptr + at + columns, mask=at + columns < end, other=0.0).to(dtype)
        squares += v * v
        at += BLOCK
    factor = tl.load(g_ptr + row).to(dtype) / tl.sqrt(tl.sum(squares, axis=0))
    at = begin
    while at < end:
        v = tl.load(v_ptr + at + columns, mask=at + columns < end, other=0.0).to(dtype)
        tl.store(w_ptr + at + columns, v * factor, mask=at + columns < end)
        at += BLOCK


@triton.jit
def _backward_kernel(
    to_ptr,
    v_ptr,
    g_ptr,
    starts_ptr,
    of_v_ptr,
    of_g_ptr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    row = tl.program_id(0)
    begin = tl.load(starts_ptr + row)
    end = tl.load(starts_ptr + row + 1)
    columns = tl.arange(0, BLOCK)
    squares = tl.zeros([BLOCK], dtype)
    products = tl.zeros([BLOCK], dtype)
    at = begin
    while at < end:
        v = tl.load(v_ptr + at + columns, mask=at + columns < end, other=0.0).to(dtype)
        to = tl.load(to_ptr + at + columns, mask=at + columns < end, other=0.0).to(dtype)
        squares += v * v
        products += to * v
        at += BLOCK
    norm = tl.sqrt(tl.sum(squares, axis=0))
    of_g = tl.sum(products, axis=0) / norm
    tl.store(of_g_ptr + row, of_g)
    factor = tl.load(g_ptr + row).to(dtype) / norm
    at = begin
    while at < end:
        v = tl.load(v_ptr + at + columns, mask=at + columns < end, other=0.0).to(dtype)
        to = tl.load(to_ptr + at + columns, mask=at + columns < end, other=0.0).to(dtype)
        of_v = factor * (to - v * (of_g / norm))
        tl.store(of_v_ptr + at + columns, of_v, mask=at + columns < end)
        at += BLOCK


def _type(v: Tensor) -> tl.dtype:
    return tl.float64 if v.dtype == torch.float64 else tl.float32


def forward(v: Tensor, g: Tensor, starts: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute `weight_norm.rows_in_torch`."""
    w = torch.empty_like(v, dtype=dtype)
    _forward_kernel[(g.numel(),)](v, g, starts, w, BLOCK=BLOCK, dtype=_type(v))
    return w


def backward(to: Tensor, v: Tensor, g: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `weight_norm.rows_backward_in_torch`."""
    of_v, of_g = torch.empty_like(v), torch.empty_like(g)
    _backward_kernel[(g.numel(),)](to, v, g, starts, of_v, of_g, BLOCK=BLOCK, dtype=_type(v))
    return of_v, of_g
