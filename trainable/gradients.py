"""Gradient norms and clipping without waiting for the device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_grad_value_(parameters: Iterable[nn.Parameter], clip_value: float | None) -> Tensor:
    """Clamps gradients to [-clip_value, clip_value] in place, and measures them before.

    Args:
        parameters: those without a gradient are left out.
        clip_value: None measures only.

    Returns:
        [] fp32: L2 norm of all gradients before the clamping, on their device.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)).norm()
    if clip_value is not None:
        torch._foreach_clamp_min_(gradients, -clip_value)
        torch._foreach_clamp_max_(gradients, clip_value)
    return norm
