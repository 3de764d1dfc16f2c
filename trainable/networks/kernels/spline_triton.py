"""The two Triton kernels of `trainable.networks.kernels.spline`, a block of inputs per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainable.networks.kernels import spline

MIN_SIZE = tl.constexpr(spline.MIN_SIZE)
MIN_DERIVATIVE = tl.constexpr(spline.MIN_DERIVATIVE)
BLOCK = 32
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _softmax(rows, inside, scale: tl.constexpr):
    """Return the softmax [N, P] of rows / scale, zero beyond the K bins."""
    rows = tl.where(inside, rows / scale, float("-inf"))
    powers = tl.exp(rows - tl.max(rows, axis=1)[:, None])
    return powers / tl.sum(powers, axis=1)[:, None]


@triton.jit
def _inner_knots(soft, order, bound: tl.constexpr, K: tl.constexpr):
    """Return the right end [N, P] of each bin; the last one's is on the bound."""
    shares = MIN_SIZE + (1 - MIN_SIZE * K) * soft
    return tl.where(order < K - 1, 2 * bound * tl.cumsum(shares, axis=1) - bound, bound)


@triton.jit
def _pick(values, chosen):
    """Return values [N, P] where chosen, one per row, as [N]; 0 where none is."""
    return tl.sum(tl.where(chosen, values, 0.0), axis=1)


@triton.jit
def _knots_around(ends, order, index, bound: tl.constexpr):
    """Return where a bin starts and how large it is, [N] each."""
    before = _pick(ends, order == index[:, None] - 1)
    start = tl.where(index == 0, -bound, before)
    return start, _pick(ends, order == index[:, None]) - start


@triton.jit
def _softplus(x):
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _slope(rows, order, index, K: tl.constexpr):
    """Return the derivative [N] at the inner knot before bin `index`; 1 at the ends."""
    inner = MIN_DERIVATIVE + _pick(_softplus(rows), order == index[:, None] - 1)
    return tl.where((index == 0) | (index == K), 1.0, inner)


@triton.jit
def _load_rows(pointer, first, order, n, stride, inside, dtype: tl.constexpr):
    """Read parameters first .. first + n of each input: [N, P], zero beyond."""
    where = pointer[:, None] + (first + order) * stride
    return tl.load(where, mask=inside[:, None] & (order < n), other=0.0).to(dtype)


@triton.jit
def _at(i, h, t, s_b, s_h, s_t):
    """Return the offset of item i, row h, place t."""
    return i.to(tl.int64) * s_b + h * s_h + t * s_t


@triton.jit
def _places(n, H, T, N: tl.constexpr):
    """Return places of this program, which exist, and their items, rows and times: [N] each."""
    place = tl.program_id(0) * N + tl.arange(0, N)
    row = place // T
    return place, place < n, row // H, row % H, place % T


@triton.jit
def _load(pointer, at, there, dtype: tl.constexpr):
    return tl.load(pointer + at, mask=there, other=0.0).to(dtype)


@triton.jit
def _load_shape(
    rows, order, stride, there, scale: tl.constexpr, K: tl.constexpr, dtype: tl.constexpr
):
    """Return the shares of widths and heights, and the derivatives before the softplus: [N, P]."""
    widths = _softmax(_load_rows(rows, 0, order, K, stride, there, dtype), order < K, scale)
    heights = _softmax(_load_rows(rows, K, order, K, stride, there, dtype), order < K, scale)
    return widths, heights, _load_rows(rows, 2 * K, order, K - 1, stride, there, dtype)


@triton.jit
def _find(
    x,
    widths,
    heights,
    derivatives,
    order,
    bound: tl.constexpr,
    K: tl.constexpr,
    INVERSE: tl.constexpr,
):
    """Return the bin's index and its quantities, as `spline.find_bins` does."""
    ends_x = _inner_knots(widths, order, bound, K)
    ends_y = _inner_knots(heights, order, bound, K)
    clamped = tl.minimum(tl.maximum(x, -bound), bound)
    ends = ends_y if INVERSE else ends_x
    passed = (clamped[:, None] >= ends) & (order < K - 1)
    index = tl.sum(passed.to(tl.int32), axis=1)
    x_k, width = _knots_around(ends_x, order, index, bound)
    y_k, height = _knots_around(ends_y, order, index, bound)
    slope_k = _slope(derivatives, order, index, K)
    slope_next = _slope(derivatives, order, index + 1, K)
    return clamped, index, x_k, y_k, width, height, slope_k, slope_next


@triton.jit
def _place(
    x, x_k, y_k, width, height, slope_k, slope_next, tiny: tl.constexpr, INVERSE: tl.constexpr
):
    """Return the place in the bin, as `spline.place_in` does."""
    if INVERSE:
        rise = x - y_k
        delta = height / width
        bend = rise * (slope_k + slope_next - 2 * delta)
        a = bend + height * (delta - slope_k)
        b = height * slope_k - bend
        c = -delta * rise
        theta = 2 * c / (-b - tl.sqrt(tl.maximum(b * b - 4 * a * c, tiny)))
    else:
        theta = (x - x_k) / width
    return theta


@triton.jit
def _forward_kernel(
    x_ptr,
    shape_ptr,
    mask_ptr,
    log_det_ptr,
    y_ptr,
    out_ptr,
    n,
    H,
    T,
    x_b,
    x_h,
    x_t,
    s_b,
    s_c,
    s_t,
    m_b,
    m_t,
    l_b,
    l_h,
    l_t,
    bound: tl.constexpr,
    scale: tl.constexpr,
    tiny: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    INVERSE: tl.constexpr,
    ADDS: tl.constexpr,
    dtype: tl.constexpr,
):
    place, there, i, h, t = _places(n, H, T, N)
    order = tl.arange(0, P)[None, :]
    x = _load(x_ptr, _at(i, h, t, x_b, x_h, x_t), there, dtype)
    mask = _load(mask_ptr, _at(i, 0, t, m_b, 0, m_t), there, dtype)
    rows = shape_ptr + _at(i, h * (3 * K - 1), t, s_b, s_c, s_t)
    widths, heights, derivatives = _load_shape(rows, order, s_c, there, scale, K, dtype)

    clamped, _index, x_k, y_k, width, height, slope_k, slope_next = _find(
        x, widths, heights, derivatives, order, bound, K, INVERSE
    )
    theta = _place(clamped, x_k, y_k, width, height, slope_k, slope_next, tiny, INVERSE)
    delta = height / width
    other = 1 - theta
    rest = theta * other
    d = delta + (slope_k + slope_next - 2 * delta) * rest
    bend = slope_next * theta * theta + 2 * delta * rest + slope_k * other * other
    log_derivative = tl.log(delta * delta * bend) - 2 * tl.log(d)
    if INVERSE:
        y = x_k + theta * width
        log_derivative = -log_derivative
    else:
        y = y_k + height * (delta * theta * theta + slope_k * rest) / d

    inside = (x >= -bound) & (x <= bound)
    log_derivative = tl.where(inside, log_derivative, 0.0) * mask
    if ADDS:
        log_derivative += _load(log_det_ptr, _at(i, h, t, l_b, l_h, l_t), there, dtype)
    tl.store(y_ptr + place, tl.where(inside, y, x) * mask, mask=there)
    tl.store(out_ptr + place, log_derivative, mask=there)


@triton.jit
def _of_sizes(soft, order, index, start, size, factor: tl.constexpr, K: tl.constexpr):
    """Return the gradient [N, P] of widths or heights: a share moves the knots behind it."""
    start, size, index = start[:, None], size[:, None], index[:, None]
    shares = tl.where(order < index, start - size, 0.0)
    shares += tl.where((order <= index) & (index < K - 1), size, 0.0)
    weighted = soft * shares
    return factor * (weighted - soft * tl.sum(weighted, axis=1)[:, None])


@triton.jit
def _store_rows(pointer, first, order, n, stride, inside, values):
    where = pointer[:, None] + (first + order) * stride
    tl.store(where, values, mask=inside[:, None] & (order < n))


@triton.jit
def _load_if(wanted: tl.constexpr, pointer, at, there, N: tl.constexpr, dtype: tl.constexpr):
    """Return what `_load` does, or zeros."""
    if wanted:
        values = _load(pointer, at, there, dtype)
    else:
        values = tl.zeros([N], dtype)
    return values


@triton.jit
def _gradients_in_bin(
    to_output, to_log, theta, width, height, slope_k, slope_next, INVERSE: tl.constexpr
):
    """Return the gradients within a bin, as `spline._gradients_in_bin`, name by name: [N] each.

    Of the input, the place, the output before inversion, width, height and both slopes.
    """
    delta = height / width
    curve = slope_k + slope_next - 2 * delta
    other = 1 - theta
    rest = theta * other
    squared, other_squared = theta * theta, other * other
    straight = 1 - 2 * rest
    d = delta + curve * rest
    m = slope_next * squared + 2 * delta * rest + slope_k * other_squared
    risen = (delta * squared + slope_k * rest) / d
    slope = (delta / d) * (delta / d) * m
    bend = (slope_next * theta - slope_k * other) / m + (delta / m - curve / d) * (other - theta)
    log_x = 2 * bend / width
    if INVERSE:
        of_x = (to_output - to_log * log_x) / slope
        of_f = -of_x
        of_log = -to_log
    else:
        of_x = to_output * slope + to_log * log_x
        of_f = to_output
        of_log = to_log

    part = of_f * height / d
    by_m, by_d = of_log / m, 2 * of_log / d
    of_place = of_f * slope + of_log * log_x
    of_delta = part * squared - (part * risen + by_d) * straight
    of_delta += 2 * (by_m * rest + of_log / delta)
    shared = (part * risen + by_d) * rest
    of_slope_k = part * rest + by_m * other_squared - shared
    of_slope_next = by_m * squared - shared
    of_size = of_delta / width
    of_width = -of_place * theta - of_size * delta
    of_height = of_f * risen + of_size
    return of_x, of_place, of_f, of_width, of_height, of_slope_k, of_slope_next


@triton.jit
def _of_derivatives(derivatives, order, index, of_slope_k, of_slope_next):
    """Return the gradient [N, P] of the derivatives before the softplus."""
    chosen = tl.where(order == index[:, None] - 1, of_slope_k[:, None], 0.0)
    chosen += tl.where(order == index[:, None], of_slope_next[:, None], 0.0)
    return chosen / (1.0 + tl.exp(-derivatives))


@triton.jit
def _backward_kernel(
    to_output_ptr,
    to_log_ptr,
    x_ptr,
    shape_ptr,
    mask_ptr,
    of_x_ptr,
    of_shape_ptr,
    n,
    H,
    T,
    x_b,
    x_h,
    x_t,
    s_b,
    s_c,
    s_t,
    m_b,
    m_t,
    g_b,
    g_h,
    g_t,
    l_b,
    l_h,
    l_t,
    bound: tl.constexpr,
    scale: tl.constexpr,
    tiny: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    INVERSE: tl.constexpr,
    OUTPUT: tl.constexpr,
    LOG: tl.constexpr,
    dtype: tl.constexpr,
):
    place, there, i, h, t = _places(n, H, T, N)
    order = tl.arange(0, P)[None, :]
    x = _load(x_ptr, _at(i, h, t, x_b, x_h, x_t), there, dtype)
    mask = _load(mask_ptr, _at(i, 0, t, m_b, 0, m_t), there, dtype)
    rows = shape_ptr + _at(i, h * (3 * K - 1), t, s_b, s_c, s_t)
    widths, heights, derivatives = _load_shape(rows, order, s_c, there, scale, K, dtype)
    to_output = _load_if(OUTPUT, to_output_ptr, _at(i, h, t, g_b, g_h, g_t), there, N, dtype) * mask
    to_log = _load_if(LOG, to_log_ptr, _at(i, h, t, l_b, l_h, l_t), there, N, dtype) * mask

    clamped, index, x_k, y_k, width, height, slope_k, slope_next = _find(
        x, widths, heights, derivatives, order, bound, K, INVERSE
    )
    inside = (x >= -bound) & (x <= bound)
    theta = _place(clamped, x_k, y_k, width, height, slope_k, slope_next, tiny, INVERSE)
    of_x, of_place, of_f, of_width, of_height, of_slope_k, of_slope_next = _gradients_in_bin(
        tl.where(inside, to_output, 0.0),
        tl.where(inside, to_log, 0.0),
        theta,
        width,
        height,
        slope_k,
        slope_next,
        INVERSE,
    )
    factor: tl.constexpr = 2 * bound * (1 - MIN_SIZE * K) / scale
    of_widths = _of_sizes(widths, order, index, -of_place, of_width, factor, K)
    of_heights = _of_sizes(heights, order, index, of_f, of_height, factor, K)
    of_derivatives = _of_derivatives(derivatives, order, index, of_slope_k, of_slope_next)

    tl.store(of_x_ptr + place, tl.where(inside, of_x, to_output), mask=there)
    of_rows = of_shape_ptr + _at(i, h * (3 * K - 1), t, H * (3 * K - 1) * T, T, 1)
    _store_rows(of_rows, 0, order, K, T, there, of_widths)
    _store_rows(of_rows, K, order, K, T, there, of_heights)
    _store_rows(of_rows, 2 * K, order, K - 1, T, there, of_derivatives)


def _sizes(x: Tensor, shape: Tensor, dtype: torch.dtype) -> dict[str, int | tl.dtype]:
    n_bins = (shape.size(1) // x.size(1) + 1) // 3
    padded = triton.next_power_of_2(n_bins)
    return {"K": n_bins, "P": padded, "N": BLOCK, "dtype": TYPES[dtype]}


def forward(
    x: Tensor,
    shape: Tensor,
    mask: Tensor,
    log_det: Tensor | None,
    inverse: bool,
    bound: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute `spline.spline`."""
    dtype = spline.computed_in(x, shape)
    y = x.new_empty(x.shape, dtype=dtype)
    out = torch.empty_like(y)
    added = y if log_det is None else log_det
    _forward_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        x,
        shape,
        mask,
        added,
        y,
        out,
        x.numel(),
        x.size(1),
        x.size(2),
        *x.stride(),
        *shape.stride(),
        mask.stride(0),
        mask.stride(2),
        *added.stride(),
        bound=bound,
        scale=scale,
        tiny=torch.finfo(dtype).tiny,
        **_sizes(x, shape, dtype),
        INVERSE=inverse,
        ADDS=log_det is not None,
    )
    return y, out


def backward(
    x: Tensor,
    shape: Tensor,
    mask: Tensor,
    to_output: Tensor | None,
    to_log: Tensor | None,
    inverse: bool,
    bound: float,
    scale: float,
    kept: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x and shape."""
    assert not kept
    dtype = spline.computed_in(x, shape)
    of_x, of_shape = x.new_empty(x.shape), shape.new_empty(shape.shape)
    first, second = (of_x if to is None else to for to in (to_output, to_log))
    _backward_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        first,
        second,
        x,
        shape,
        mask,
        of_x,
        of_shape,
        x.numel(),
        x.size(1),
        x.size(2),
        *x.stride(),
        *shape.stride(),
        mask.stride(0),
        mask.stride(2),
        *first.stride(),
        *second.stride(),
        bound=bound,
        scale=scale,
        tiny=torch.finfo(dtype).tiny,
        **_sizes(x, shape, dtype),
        INVERSE=inverse,
        OUTPUT=to_output is not None,
        LOG=to_log is not None,
    )
    return of_x, of_shape
