"""The least precision in which losses, alignments and spectrograms are computed."""

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Raise half precision and whole numbers to fp32; fp32 and double stay as they are.

    So a step on double networks is computed in double throughout, as parity tests need it.

    Args:
        tensor: [...] of any type.

    Returns:
        [...] in the promotion of the tensor's type and fp32.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
