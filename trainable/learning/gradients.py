"""Gradient norms without waiting for the device; what is too long is clipped inside the optimizer's kernel."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients of the parameters that have one: [], on their device.

    In fp32, or in double where they are.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(gradients, 2, dtype=dtype)).norm()
