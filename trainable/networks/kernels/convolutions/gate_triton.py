"""The two Triton kernels of the module `gate` beside it, a piece of a channel per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2.0 * _sigmoid(2.0 * x) - 1.0


@triton.jit
def _halves(x_ptr, shift_ptr, item, c, t, T, C: tl.constexpr, there, dtype: tl.constexpr):
    """Read channel c of both halves, shifted."""
    row = item * 2 * C + c
    filtered = tl.load(x_ptr + row * T + t, mask=there, other=0.0).to(dtype)
    opened = tl.load(x_ptr + (row + C) * T + t, mask=there, other=0.0).to(dtype)
    filtered += tl.load(shift_ptr + row).to(dtype)
    opened += tl.load(shift_ptr + row + C).to(dtype)
    return _tanh(filtered), _sigmoid(opened)


@triton.jit
def _forward_kernel(
    x_ptr,
    shift_ptr,
    out_ptr,
    T,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    item = (tl.program_id(0) // C).to(tl.int64)
    c = tl.program_id(0) % C
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    filtered, opened = _halves(x_ptr, shift_ptr, item, c, t, T, C, t < T, dtype)
    tl.store(out_ptr + (item * C + c) * T + t, filtered * opened, mask=t < T)


@triton.jit
def _backward_kernel(
    to_ptr,
    x_ptr,
    shift_ptr,
    of_x_ptr,
    T,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    item = (tl.program_id(0) // C).to(tl.int64)
    c = tl.program_id(0) % C
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    filtered, opened = _halves(x_ptr, shift_ptr, item, c, t, T, C, t < T, dtype)
    to = tl.load(to_ptr + (item * C + c) * T + t, mask=t < T, other=0.0).to(dtype)
    row = item * 2 * C + c
    tl.store(of_x_ptr + row * T + t, to * opened * (1.0 - filtered * filtered), mask=t < T)
    tl.store(of_x_ptr + (row + C) * T + t, to * filtered * opened * (1.0 - opened), mask=t < T)


def _sizes(x: Tensor) -> dict:
    dtype = tl.float64 if x.dtype == torch.float64 else tl.float32
    return {"C": x.size(1) // 2, "BLOCK": BLOCK, "dtype": dtype}


def _grid(x: Tensor) -> tuple[int, int]:
    return x.size(0) * (x.size(1) // 2), triton.cdiv(x.size(2), BLOCK)


def forward(x: Tensor, shift: Tensor) -> Tensor:
    """Compute `gate.gate_in_torch`, of contiguous tensors."""
    out = x.new_empty(x.size(0), x.size(1) // 2, x.size(2))
    _forward_kernel[_grid(x)](x, shift, out, x.size(2), **_sizes(x))
    return out


def backward(to: Tensor, x: Tensor, shift: Tensor) -> Tensor:
    """Compute `gate.gate_backward_in_torch`, of contiguous tensors."""
    of_x = torch.empty_like(x)
    _backward_kernel[_grid(x)](to, x, shift, of_x, x.size(2), **_sizes(x))
    return of_x
