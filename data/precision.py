"""The least precision in which losses, alignments and spectrograms are computed."""

import contextlib
from collections.abc import Iterator
from typing import Any

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


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Multiply fp32 matrices in fp32 inside, whatever train.matmul_precision allows the networks.

    TF32 rounds factors to 10 bits, by which one frame in 170 changes its token in the alignment.

    The switch is the process's and not the thread's: a product whose backward pass must be exact
    too has to set it there again (`fixed_product`). It is read and set by the one interface that
    `trainable.hardware` uses: torch refuses to read one of its two after the other was set.
    """
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)


class _FixedProduct(torch.autograd.Function):
    """See `fixed_product`."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        """Return the product."""
        ctx.save_for_backward(matrix)
        with full_precision():
            return torch.matmul(matrix, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Return the gradient of x."""
        (matrix,) = ctx.saved_tensors
        with full_precision():
            return None, torch.matmul(matrix.T, grad)


def fixed_product(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply by a matrix that takes no gradient; without TF32, forward and backward.

    Args:
        matrix: [M, N].
        x: [B, N, T] of the same type.

    Returns:
        [B, M, T].
    """
    return _FixedProduct.apply(matrix, x)
