"""Monotonic rational-quadratic splines (Durkan et al., 2019, arXiv:1906.04032)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from data.precision import widen

MIN_BIN_WIDTH = 1e-3
MIN_BIN_HEIGHT = 1e-3
MIN_DERIVATIVE = 1e-3


def _knots(unnormalized: Tensor, minimum: float, bound: float) -> tuple[Tensor, Tensor]:
    """Make bins that fill [-bound, bound]: knot positions [..., K + 1], bin sizes [..., K]."""
    n_bins = unnormalized.size(-1)
    shares = minimum + (1 - minimum * n_bins) * torch.softmax(unnormalized, dim=-1)
    inner = 2 * bound * shares.cumsum(-1)[..., :-1] - bound
    left = torch.full_like(inner[..., :1], -bound)
    # the ends are set, not summed, so that inputs on the bound fall into the last bin
    knots = torch.cat([left, inner, -left], dim=-1)
    return knots, knots.diff(dim=-1)


def _pick(values: Tensor, bins: Tensor) -> Tensor:
    """Return values[..., K] at bins[..., 1], as [...]."""
    return values.gather(-1, bins).squeeze(-1)


def _solve(rise: Tensor, height: Tensor, delta: Tensor, slope_k: Tensor, curve: Tensor) -> Tensor:
    """Find the place in the bin, 0 to 1, where the spline has risen by `rise`: equations 6-8."""
    a = rise * curve + height * (delta - slope_k)
    b = height * slope_k - rise * curve
    c = -delta * rise
    # rounding may leave a discriminant just below 0, where the root has no gradient
    root = (b.square() - 4 * a * c).clamp_min(torch.finfo(rise.dtype).tiny).sqrt()
    return 2 * c / (-b - root)


def rational_quadratic_spline(
    inputs: Tensor,
    unnormalized_widths: Tensor,
    unnormalized_heights: Tensor,
    unnormalized_derivatives: Tensor,
    *,
    inverse: bool = False,
    tail_bound: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Apply an elementwise monotonic spline on [-tail_bound, tail_bound], identity outside.

    Equations 4-5 (forward), 6-8 (inverse) and 19 (derivative) of the paper. No boolean indexing:
    the tails are computed at the bound and replaced, which needs no wait for the device. Half
    precision inputs are computed in fp32.

    Args:
        inputs: [...].
        unnormalized_widths: [..., K].
        unnormalized_heights: [..., K].
        unnormalized_derivatives: [..., K - 1], at the inner knots; the slope at the ends is 1.
        inverse: whether to apply the inverse function.
        tail_bound: half of the width of the spline's square.

    Returns:
        The outputs [...] and the logarithm of the derivative of the applied function, [...].
    """
    inputs = widen(inputs)
    knots_x, widths = _knots(widen(unnormalized_widths), MIN_BIN_WIDTH, tail_bound)
    knots_y, heights = _knots(widen(unnormalized_heights), MIN_BIN_HEIGHT, tail_bound)
    end_slope = math.log(math.expm1(1 - MIN_DERIVATIVE))  # softplus gives 1 - MIN_DERIVATIVE
    padded = F.pad(widen(unnormalized_derivatives), (1, 1), value=end_slope)
    slopes = MIN_DERIVATIVE + F.softplus(padded)

    inside = (inputs >= -tail_bound) & (inputs <= tail_bound)
    clamped = inputs.clamp(-tail_bound, tail_bound)
    knots = knots_y if inverse else knots_x
    bins = (clamped.unsqueeze(-1) >= knots[..., 1:-1]).sum(-1, keepdim=True)  # [..., 1], 0 .. K - 1

    x_k, width = _pick(knots_x, bins), _pick(widths, bins)
    y_k, height = _pick(knots_y, bins), _pick(heights, bins)
    slope_k, slope_next = _pick(slopes, bins), _pick(slopes, bins + 1)
    delta = height / width
    curve = slope_k + slope_next - 2 * delta

    if inverse:
        theta = _solve(clamped - y_k, height, delta, slope_k, curve)
        outputs = theta * width + x_k
    else:
        theta = (clamped - x_k) / width
    theta_rest = theta * (1 - theta)
    denominator = delta + curve * theta_rest
    if not inverse:
        outputs = y_k + height * (delta * theta.square() + slope_k * theta_rest) / denominator
    numerator = delta.square() * (
        slope_next * theta.square() + 2 * delta * theta_rest + slope_k * (1 - theta).square()
    )
    log_derivative = numerator.log() - 2 * denominator.log()
    if inverse:
        log_derivative = -log_derivative
    return torch.where(inside, outputs, inputs), log_derivative.masked_fill(~inside, 0.0)
