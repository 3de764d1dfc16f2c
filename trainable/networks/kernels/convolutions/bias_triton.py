"""The two Triton kernels of the module `bias` beside it, a block of elements per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _forward_kernel(
    x_ptr,
    bias_ptr,
    residual_ptr,
    activated_ptr,
    total_ptr,
    elements,
    inner,
    channels,
    slope: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BOTH: tl.constexpr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < elements
    total = tl.load(x_ptr + at, mask=there, other=0.0).to(dtype)
    total += tl.load(bias_ptr + at // inner % channels, mask=there, other=0.0).to(dtype)
    if RESIDUAL:
        total += tl.load(residual_ptr + at, mask=there, other=0.0).to(dtype)
    tl.store(activated_ptr + at, tl.where(total > 0, total, slope * total), mask=there)
    if BOTH:
        tl.store(total_ptr + at, total, mask=there)


@triton.jit
def _backward_kernel(
    to_ptr,
    to_total_ptr,
    activated_ptr,
    found_ptr,
    elements,
    slope: tl.constexpr,
    TOTAL: tl.constexpr,
    BLOCK: tl.constexpr,
    dtype: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < elements
    to = tl.load(to_ptr + at, mask=there, other=0.0).to(dtype)
    activated = tl.load(activated_ptr + at, mask=there, other=0.0)
    found = tl.where(activated > 0, to, slope * to)
    if TOTAL:
        found += tl.load(to_total_ptr + at, mask=there, other=0.0).to(dtype)
    tl.store(found_ptr + at, found, mask=there)


def _type(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def forward(
    x: Tensor, bias: Tensor, residual: Tensor | None, slope: float, both: bool
) -> tuple[Tensor, Tensor]:
    """Compute `bias.add_bias_in_torch`, of contiguous tensors."""
    activated = torch.empty_like(x)
    total = x.new_empty(x.shape if both else 0)
    _forward_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        x,
        bias,
        residual,
        activated,
        total,
        x.numel(),
        x[0, 0].numel(),
        x.size(1),
        slope=slope,
        RESIDUAL=residual is not None,
        BOTH=both,
        BLOCK=BLOCK,
        dtype=_type(x),
    )
    return activated, total


def backward(to: Tensor, to_total: Tensor | None, activated: Tensor, slope: float) -> Tensor:
    """Compute `bias.add_bias_backward_in_torch`, of contiguous tensors."""
    found = torch.empty_like(to)
    _backward_kernel[(triton.cdiv(to.numel(), BLOCK),)](
        to,
        to_total,
        activated,
        found,
        to.numel(),
        slope=slope,
        TOTAL=to_total is not None,
        BLOCK=BLOCK,
        dtype=_type(to),
    )
    return found
