"""Many tensors change their type in few kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def cast(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Return tensors in other types, those that have theirs as they are."""
    if [tensor.dtype for tensor in tensors] == list(dtypes):
        return list(tensors)
    made = [
        torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)
    ]
    torch._foreach_copy_(made, list(tensors))
    return made


class Casts(torch.autograd.Function):
    """`apply` takes a type and tensors, and returns them in it; gradients are cast back."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Cast tensors."""
        ctx.set_materialize_grads(False)
        ctx.types = [tensor.dtype for tensor in tensors]
        return tuple(cast(tensors, [dtype] * len(tensors)))

    @staticmethod
    def backward(ctx: Any, *to: Tensor | None) -> tuple[Tensor | None, ...]:
        """Cast gradients; what was not used has none."""
        pairs = zip(to, ctx.types, strict=True)
        used = [(gradient, dtype) for gradient, dtype in pairs if gradient is not None]
        if not used:
            return None, *to
        made = iter(cast(*zip(*used, strict=True)))
        return None, *(None if gradient is None else next(made) for gradient in to)
