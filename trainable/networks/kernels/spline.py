"""A monotonic rational-quadratic spline as one operator (Durkan et al., 2019, arXiv:1906.04032).

Both directions, their logarithmic derivatives and all gradients in closed form. On a GPU each of
the two passes is one Triton kernel. No pass scatters, so the order of all sums is fixed.

Within a bin, with theta the place in it (0 to 1), s = height / width and rest = theta (1 - theta):

    f = y_k + height * n / d,  n = s theta^2 + d_k rest,  d = s + (d_k + d_k+1 - 2 s) rest
    f' = s^2 m / d^2,          m = d_k+1 theta^2 + 2 s rest + d_k (1 - theta)^2

which are equations 4, 5 and 19 of the paper; 6 to 8 are the inverse. The gradients of an inverse
follow from f(x; p) = y: dx = (dy - df/dp dp) / f'.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.precision import widen
from trainable.networks.kernels.support import operator

MIN_SIZE = 1e-3  # of a bin's width and height, as a share of the square
MIN_DERIVATIVE = 1e-3


class Bins(NamedTuple):
    """The bins that inputs lie in.

    Attributes:
        soft: [B, h, T, 2, K] softmax of all widths and heights.
        number: [B, h, T, 1] int64, of the bin.
        low: [B, h, T, 3, 1] left knot, lower knot, and the derivative there.
        high: [B, h, T, 3, 1] right knot, upper knot, and the derivative there.
    """

    soft: Tensor
    number: Tensor
    low: Tensor
    high: Tensor


class Bin(NamedTuple):
    """One bin per input, [B, h, T] each: as in the formulas above."""

    x_k: Tensor
    y_k: Tensor
    slope_k: Tensor
    width: Tensor
    height: Tensor
    slope_next: Tensor


def rows_of(shape: Tensor, halves: int) -> Tensor:
    """Return parameters [B, h (3 K - 1), T] as [B, h, T, 3 K - 1]."""
    return widen(shape).unflatten(1, (halves, -1)).transpose(2, 3)


def find_bins(x: Tensor, rows: Tensor, inverse: bool, bound: float, scale: float) -> Bins:
    """Find the bin of each input: x [B, h, T], rows [B, h, T, 3 K - 1]."""
    n_bins = (rows.size(-1) + 1) // 3
    sizes = rows[..., : 2 * n_bins].unflatten(-1, (2, n_bins))
    soft = torch.softmax(sizes / scale, dim=-1)
    shares = MIN_SIZE + (1 - MIN_SIZE * n_bins) * soft[..., :-1]
    inner = 2 * bound * shares.cumsum(-1) - bound  # [B, h, T, 2, K - 1]
    index = (x.unsqueeze(-1) >= inner[..., int(inverse), :]).sum(-1, keepdim=True)
    index = index.clamp_max(n_bins - 1)

    # the ends are set, not summed, so that inputs on the bound fall into the last bin
    knots = F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)
    slopes = MIN_DERIVATIVE + F.softplus(rows[..., 2 * n_bins :])
    slopes = F.pad(slopes, (1, 1), value=1.0)
    all_of = torch.cat([knots, slopes.unsqueeze(-2)], dim=-2)  # [B, h, T, 3, K + 1]
    three = index.unsqueeze(-2).expand(*index.shape[:-1], 3, 1)
    return Bins(soft, index, all_of.gather(-1, three), all_of.gather(-1, three + 1))


def bin_of(found: Bins) -> Bin:
    """Return the quantities of the formulas."""
    x_k, y_k, slope_k = found.low.squeeze(-1).unbind(-1)
    x_next, y_next, slope_next = found.high.squeeze(-1).unbind(-1)
    return Bin(x_k, y_k, slope_k, x_next - x_k, y_next - y_k, slope_next)


def place_in(at: Bin, clamped: Tensor, delta: Tensor, curve: Tensor, inverse: bool) -> Tensor:
    """Return the place of each input in its bin, 0 to 1: [B, h, T]; equations 6-8 if inverse."""
    if not inverse:
        return (clamped - at.x_k) / at.width
    rise = clamped - at.y_k
    bend = rise * curve
    a = bend + at.height * (delta - at.slope_k)
    b = at.height * at.slope_k - bend
    c = -delta * rise
    # rounding may leave a discriminant just below 0, where the root has no gradient
    root = (b.square() - 4 * a * c).clamp_min(torch.finfo(rise.dtype).tiny).sqrt()
    return 2 * c / (-b - root)


def spline_in_torch(
    x: Tensor,
    shape: Tensor,
    mask: Tensor,
    log_det: Tensor | None,
    inverse: bool,
    bound: float,
    scale: float,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Compute `spline` from operators that autograd knows; and `Bins`, for the backward pass."""
    x = widen(x)
    inside = (x >= -bound) & (x <= bound)
    clamped = x.clamp(-bound, bound)
    found = find_bins(clamped, rows_of(shape, x.size(1)), inverse, bound, scale)
    at = bin_of(found)
    delta = at.height / at.width
    curve = at.slope_k + at.slope_next - 2 * delta
    theta = place_in(at, clamped, delta, curve, inverse)
    rest = theta * (1 - theta)
    d = delta + curve * rest
    if inverse:
        y = at.x_k + theta * at.width
    else:
        y = at.y_k + at.height * (delta * theta.square() + at.slope_k * rest) / d
    m = at.slope_next * theta.square() + 2 * delta * rest + at.slope_k * (1 - theta).square()
    log_derivative = (delta.square() * m).log() - 2 * d.log()
    if inverse:
        log_derivative = -log_derivative
    log_derivative = log_derivative.masked_fill(~inside, 0.0) * mask
    if log_det is not None:
        log_derivative = log_det + log_derivative
    return torch.where(inside, y, x) * mask, log_derivative, list(found)


def _gradients_in_bin(
    at: Bin, clamped: Tensor, to_output: Tensor, to_log: Tensor, inverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of an input and its bin.

    Returns:
        Of x [B, h, T]; of the bin's left and lower knot, and of its sizes, [B, h, T, 2, 1]; of both
        derivatives, [B, h, T, 2].
    """
    delta = at.height / at.width
    curve = at.slope_k + at.slope_next - 2 * delta
    theta = place_in(at, clamped, delta, curve, inverse)
    other = 1 - theta
    rest = theta * other
    squared, other_squared = theta.square(), other.square()
    straight = 1 - 2 * rest
    d = delta + curve * rest
    m = at.slope_next * squared + 2 * delta * rest + at.slope_k * other_squared
    risen = (delta * squared + at.slope_k * rest) / d
    slope = (delta / d).square() * m  # f'
    bend = (at.slope_next * theta - at.slope_k * other) / m
    bend = bend + (delta / m - curve / d) * (other - theta)
    log_x = 2 * bend / at.width  # derivative of log f'

    if inverse:
        of_x = (to_output - to_log * log_x) / slope
        of_f, of_log = -of_x, -to_log
    else:
        of_x = to_output * slope + to_log * log_x
        of_f, of_log = to_output, to_log

    part = of_f * at.height / d
    by_m, by_d = of_log / m, 2 * of_log / d
    of_place = of_f * slope + of_log * log_x
    of_delta = part * squared - (part * risen + by_d) * straight
    of_delta = of_delta + 2 * (by_m * rest + of_log / delta)
    shared = (part * risen + by_d) * rest
    of_slope_k = part * rest + by_m * other_squared - shared
    of_slope_next = by_m * squared - shared

    of_size = of_delta / at.width
    of_width = -of_place * theta - of_size * delta
    starts = torch.stack([-of_place, of_f], -1).unsqueeze(-1)
    sizes = torch.stack([of_width, of_f * risen + of_size], -1).unsqueeze(-1)
    return of_x, starts, sizes, torch.stack([of_slope_k, of_slope_next], -1)


def spline_backward_in_torch(
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
    """Compute the gradients of x and shape in closed form; an output may have none (None)."""
    wide, found = widen(x), Bins(*kept)
    inside = (wide >= -bound) & (wide <= bound)
    none = torch.zeros_like(wide)
    within = mask * inside
    of_x, starts, sizes, slopes = _gradients_in_bin(
        bin_of(found),
        wide.clamp(-bound, bound),
        none if to_output is None else to_output * within,
        none if to_log is None else to_log * within,
        inverse,
    )
    passed = none if to_output is None else to_output * mask

    # a share moves all knots behind it but the last, which stays on the bound
    soft, index = found.soft, found.number
    n_bins = soft.size(-1)
    order = torch.arange(n_bins, device=x.device)
    before = order < index
    until = (order <= index) & (index < n_bins - 1)
    shares = before.unsqueeze(-2) * (starts - sizes) + until.unsqueeze(-2) * sizes
    weighted = soft * shares
    factor = 2 * bound * (1 - MIN_SIZE * n_bins) / scale
    of_sizes = factor * (weighted - soft * weighted.sum(-1, keepdim=True))

    inner = order[:-1]
    slope_k, slope_next = slopes.split(1, dim=-1)
    chosen = (inner == index - 1) * slope_k + (inner == index) * slope_next
    derivatives = rows_of(shape, x.size(1))[..., 2 * n_bins :]
    of_rows = torch.cat([of_sizes.flatten(-2), torch.sigmoid(derivatives) * chosen], dim=-1)
    of_shape = of_rows.transpose(2, 3).flatten(1, 2)
    return torch.where(inside, of_x, passed).to(x.dtype), of_shape.to(shape.dtype)


def _forward_in_triton(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    from trainable.networks.kernels.spline_triton import forward

    return *forward(x, *args), []


def _forward_shapes(x: Tensor, shape: Tensor, *_: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    y = x.new_empty(x.shape, dtype=computed_in(x, shape))
    return y, torch.empty_like(y), []


def _backward_in_triton(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    from trainable.networks.kernels.spline_triton import backward

    return backward(x, *args)


def _backward_shapes(x: Tensor, shape: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), shape.new_empty(shape.shape)


FORWARD = operator(
    "spline(Tensor x, Tensor shape, Tensor mask, Tensor? log_det, bool inverse, float bound,"
    " float scale) -> (Tensor, Tensor, Tensor[])",
    spline_in_torch,
    _forward_in_triton,
    _forward_shapes,
)
BACKWARD = operator(
    "spline_backward(Tensor x, Tensor shape, Tensor mask, Tensor? to_output, Tensor? to_log,"
    " bool inverse, float bound, float scale, Tensor[] kept) -> (Tensor, Tensor)",
    spline_backward_in_torch,
    _backward_in_triton,
    _backward_shapes,
)


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, total, kept = FORWARD(*inputs)
        x, shape, mask, log_det, *ctx.settings = inputs
        ctx.adds = log_det is not None
        ctx.save_for_backward(x, shape, mask, *kept)
        ctx.set_materialize_grads(False)
        return y, total

    @staticmethod
    def backward(ctx: Any, to_output: Tensor | None, to_log: Tensor | None) -> tuple[Any, ...]:
        x, shape, mask, *kept = ctx.saved_tensors
        of_x = of_shape = None
        if to_output is not None or to_log is not None:
            of_x, of_shape = BACKWARD(x, shape, mask, to_output, to_log, *ctx.settings, kept)
        return of_x, of_shape, None, to_log if ctx.adds else None, None, None, None


def computed_in(x: Tensor, shape: Tensor) -> torch.dtype:
    """Return the type that the spline is computed in: at least fp32."""
    return torch.promote_types(torch.promote_types(x.dtype, shape.dtype), torch.float32)


def spline(
    x: Tensor,
    shape: Tensor,
    mask: Tensor,
    log_det: Tensor | None = None,
    *,
    inverse: bool = False,
    bound: float = 1.0,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Apply an elementwise monotonic spline on [-bound, bound], identity outside.

    Half precision is computed in fp32.

    Args:
        x: [B, h, T].
        shape: [B, h (3 K - 1), T], for each of the h: the K widths and K heights of the bins before
            the softmax, times `scale`, and the derivatives at the K - 1 inner knots before the
            softplus. The slope at both ends is 1.
        mask: [B, 1, T], factor of both outputs; takes no gradient.
        log_det: [B, h, T], or None for zeros.
        inverse: whether to apply the inverse function.
        bound: half of the width of the spline's square.
        scale: divisor of the widths and heights.

    Returns:
        The outputs, and log_det plus the logarithm of the applied function's derivative, [B, h, T].
    """
    if torch.compiler.is_exporting():  # a file for others holds no operators of ours
        return spline_in_torch(x, shape, mask, log_det, inverse, bound, scale)[:2]
    return _Spline.apply(x, shape, mask, log_det, inverse, bound, scale)
