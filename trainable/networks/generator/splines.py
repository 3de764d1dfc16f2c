"""Monotonic rational-quadratic splines (Durkan et al., 2019, arXiv:1906.04032)."""

import torch
from torch import Tensor

from trainable.networks.kernels.spline import spline


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

    Half precision inputs are computed in fp32.

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
    rows = [unnormalized_widths, unnormalized_heights, unnormalized_derivatives]
    shape = torch.cat(rows, dim=-1).flatten(0, -2).t().unsqueeze(0)
    x = inputs.reshape(1, 1, -1)
    outputs, log_derivative = spline(
        x, shape, torch.ones_like(x), inverse=inverse, bound=tail_bound
    )
    return outputs.view(inputs.shape), log_derivative.view(inputs.shape)
