"""Gradient norms without waiting for the device; what is too long is clipped inside the optimizer's kernel."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients of the parameters that have one: fp32 [], on their device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)).norm()
