"""The Triton kernels of `trainable.networks.kernels.lstm`: they walk through time.

A program has one direction and a block of rows to itself, so that it waits for no other. What a
step hands to the next lies in the results in global memory, behind a barrier.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # of a product on tensor cores, the least
# Largest tiles of hidden channels that are computed, and that are summed over. On an H200 it takes
# half as long as with tiles of 32 by 32 and 8 warps. Of 128 by 32 it is a tenth faster still, but
# they do not fit into the shared memory of smaller GPUs.
COMPUTED, SUMMED = 64, 32


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def _product(total, left, weights, there, precision: tl.constexpr):
    """Add left [R, K] times a tile of the weights [K, N]."""
    tile = tl.load(weights, mask=there, other=0.0).to(tl.float32)
    return tl.dot(left, tile, total, input_precision=precision)


@triton.jit
def _forward_kernel(
    gates_ptr,
    weight_ptr,
    h_ptr,
    c_ptr,
    opened_ptr,
    B,
    T,
    g_b,
    g_t,
    H: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    precision: tl.constexpr,
):
    way = tl.program_id(0)
    row = (tl.program_id(1) * R + tl.arange(0, R))[:, None].to(tl.int64)
    weight_ptr += way * 4 * H * H
    step = 0
    while step < T:
        t = step + way * (T - 1 - 2 * step)
        at = (row * T + t) * 2 + way
        before = (row * T + t - 1 + 2 * way) * 2 + way
        known = (row < B) & (step > 0)
        for j in range(0, H, N):
            column = (j + tl.arange(0, N))[None, :]
            there = (row < B) & (column < H)
            i = tl.zeros([R, N], tl.float32)
            f = tl.zeros([R, N], tl.float32)
            g = tl.zeros([R, N], tl.float32)
            o = tl.zeros([R, N], tl.float32)
            for k in range(0, H, K):
                along = k + tl.arange(0, K)
                state = h_ptr + before * H + along[None, :]
                h = tl.load(state, mask=known & (along[None, :] < H), other=0.0)
                tile = weight_ptr + column * H + along[:, None]
                inside = (column < H) & (along[:, None] < H)
                i = _product(i, h, tile, inside, precision)
                f = _product(f, h, tile + H * H, inside, precision)
                g = _product(g, h, tile + 2 * H * H, inside, precision)
                o = _product(o, h, tile + 3 * H * H, inside, precision)
            given = gates_ptr + row * g_b + t * g_t + way * 4 * H + column
            i = _sigmoid(i + tl.load(given, mask=there, other=0.0))
            f = _sigmoid(f + tl.load(given + H, mask=there, other=0.0))
            g = _tanh(g + tl.load(given + 2 * H, mask=there, other=0.0))
            o = _sigmoid(o + tl.load(given + 3 * H, mask=there, other=0.0))
            c = tl.load(c_ptr + before * H + column, mask=known & (column < H), other=0.0)
            c = f * c + i * g
            tl.store(c_ptr + at * H + column, c, mask=there)
            tl.store(h_ptr + at * H + column, o * _tanh(c), mask=there)
            opened = opened_ptr + at * 4 * H + column
            tl.store(opened, i, mask=there)
            tl.store(opened + H, f, mask=there)
            tl.store(opened + 2 * H, g, mask=there)
            tl.store(opened + 3 * H, o, mask=there)
        tl.debug_barrier()
        step += 1


@triton.jit
def _handed_back(
    of_gates,
    known,
    weights,
    column,
    H: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    precision: tl.constexpr,
):
    """Return the gradient [R, N] of some of h, which the gates of the step behind it have read."""
    of_h = tl.zeros([R, N], tl.float32)
    for k in range(0, 4 * H, K):
        along = k + tl.arange(0, K)
        of_after = tl.load(
            of_gates + along[None, :], mask=known & (along[None, :] < 4 * H), other=0.0
        )
        tile = weights + along[:, None] * H + column
        inside = (column < H) & (along[:, None] < 4 * H)
        of_h = _product(of_h, of_after, tile, inside, precision)
    return of_h


@triton.jit
def _backward_kernel(
    to_ptr,
    weight_ptr,
    h_ptr,
    c_ptr,
    opened_ptr,
    of_gates_ptr,
    before_ptr,
    of_c_ptr,
    B,
    T,
    g_b,
    g_t,
    g_w,
    g_h,
    H: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    precision: tl.constexpr,
):
    way = tl.program_id(0)
    row = (tl.program_id(1) * R + tl.arange(0, R))[:, None].to(tl.int64)
    weight_ptr += way * 4 * H * H
    step = 0
    while step < T:
        t = T - 1 - step - way * (T - 1 - 2 * step)
        at = (row * T + t) * 2 + way
        before = (row * T + t - 1 + 2 * way) * 2 + way
        after = (row * T + t + 1 - 2 * way) * 2 + way
        known = (row < B) & (step > 0)
        for j in range(0, H, N):
            column = (j + tl.arange(0, N))[None, :]
            there = (row < B) & (column < H)
            earlier = there & (step < T - 1)
            passed = of_gates_ptr + after * 4 * H
            of_h = _handed_back(passed, known, weight_ptr, column, H, R, N, K, precision)
            to = to_ptr + row * g_b + t * g_t + way * g_w + column * g_h
            of_h += tl.load(to, mask=there, other=0.0)

            opened = opened_ptr + at * 4 * H + column
            i = tl.load(opened, mask=there, other=0.0)
            f = tl.load(opened + H, mask=there, other=0.0)
            g = tl.load(opened + 2 * H, mask=there, other=0.0)
            o = tl.load(opened + 3 * H, mask=there, other=0.0)
            cell = _tanh(tl.load(c_ptr + at * H + column, mask=there, other=0.0))
            c_before = tl.load(c_ptr + before * H + column, mask=earlier, other=0.0)
            carried = of_c_ptr + (row * 2 + way) * H + column
            of_c = tl.load(carried, mask=known & (column < H), other=0.0)
            of_c += of_h * o * (1.0 - cell * cell)
            tl.store(carried, of_c * f, mask=there)

            of_gates = of_gates_ptr + at * 4 * H + column
            tl.store(of_gates, of_c * g * i * (1.0 - i), mask=there)
            tl.store(of_gates + H, of_c * c_before * f * (1.0 - f), mask=there)
            tl.store(of_gates + 2 * H, of_c * i * (1.0 - g * g), mask=there)
            tl.store(of_gates + 3 * H, of_h * cell * o * (1.0 - o), mask=there)
            h = tl.load(h_ptr + before * H + column, mask=earlier, other=0.0)
            tl.store(before_ptr + at * H + column, h, mask=there)
        tl.debug_barrier()
        step += 1


def _sizes(B: int, H: int) -> tuple[tuple[int, int], dict[str, int | str]]:
    """Return the grid and what the kernels are compiled for."""
    precision = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    whole = max(16, triton.next_power_of_2(H))
    tiles = {"N": min(COMPUTED, whole), "K": min(SUMMED, whole)}
    sizes = {"H": H, "R": ROWS, **tiles, "precision": precision, "num_warps": 4}
    return (2, triton.cdiv(B, ROWS)), sizes


def forward(gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `lstm.lstm_in_torch`."""
    gates, weight = gates.contiguous(), weight.contiguous()
    B, T, _, size = gates.shape
    h = gates.new_empty(B, T, 2, size // 4, dtype=torch.float32)
    c, opened = torch.empty_like(h), h.new_empty(gates.shape)
    grid, sizes = _sizes(B, size // 4)
    _forward_kernel[grid](
        gates, weight, h, c, opened, B, T, gates.stride(0), gates.stride(1), **sizes
    )
    return h, c, opened


def backward(
    to: Tensor, weight: Tensor, h: Tensor, c: Tensor, opened: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute `lstm.lstm_backward_in_torch`."""
    B, T, _, H = h.shape
    of_gates, before, of_c = (
        torch.empty_like(opened),
        torch.empty_like(h),
        torch.empty_like(h[:, 0]),
    )
    grid, sizes = _sizes(B, H)
    weight = weight.contiguous()
    _backward_kernel[grid](
        to, weight, h, c, opened, of_gates, before, of_c, B, T, *to.stride(), **sizes
    )
    return of_gates, before
