"""Convolutions in groups of few channels, as products of matrices.

cuDNN computes such a convolution one group after the other, with a change of layout before and
after each: the convolutions of 41 taps in up to 256 groups of DiscriminatorS took more than half of
a training step's kernels. With stride S, S positions of a channel count as S channels, so that the
stride is 1 and M = ceil(K / S) taps are left; then each group is one product

    y[g] = W[g] U[g],  W [O, I M S],  U [I M S, B T'] the windows of x

and so are the two gradients: dW = dy U^T, and dx from the windows of dy.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _windows(x: Tensor, groups: int, taps: int, stride: int) -> Tensor:
    """Return windows of x [B, G I, S N]: [G, I M S, B (N - M + 1)]."""
    parts = x.view(x.size(0), groups, -1, x.size(2) // stride, stride).unfold(3, taps, 1)
    return parts.permute(1, 2, 5, 4, 0, 3).flatten(4).flatten(1, 3)


class _GroupedConv1d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, groups: int
    ) -> Tensor:
        (B, _, T), (_, _, K) = x.shape, weight.shape
        taps = -(-K // stride)
        frames = (T + 2 * padding - K) // stride + 1
        # as many positions as the windows read, and as hold all of x
        last = max(frames + taps - 1, -(-(padding + T) // stride))
        x = F.pad(x, (padding, last * stride - padding - T))
        if taps * stride > K:
            weight = F.pad(weight, (0, taps * stride - K))
        ctx.save_for_backward(x, weight)
        ctx.sizes = T, K, stride, padding, groups, taps, frames
        read = x[..., : (frames + taps - 1) * stride]
        made = weight.reshape(groups, -1, weight[0].numel()) @ _windows(read, groups, taps, stride)
        return made.unflatten(2, (B, frames)).permute(2, 0, 1, 3).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, to: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        T, K, stride, padding, groups, taps, frames = ctx.sizes
        B, last = x.size(0), x.size(2) // stride
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            read = x[..., : (frames + taps - 1) * stride]
            heard = _windows(read, groups, taps, stride)
            each = to.unflatten(1, (groups, -1)).permute(1, 2, 0, 3).flatten(2)
            of_weight = (each @ heard.transpose(1, 2)).view(weight.shape)[..., :K]
        if ctx.needs_input_grad[0]:
            # position n heard from frames n - M + 1 to n, by the last tap to the first
            spread = F.pad(to, (taps - 1, last - frames))
            parts = weight.view(groups, to.size(1) // groups, -1, taps, stride).flip(3)
            back = parts.permute(0, 2, 4, 1, 3).flatten(3).flatten(1, 2)
            made = (back @ _windows(spread, groups, taps, 1)).unflatten(1, (-1, stride))
            made = made.unflatten(3, (B, last)).permute(3, 0, 1, 4, 2)
            first, rest = divmod(padding, stride)
            made = made[..., first : -(-(padding + T) // stride), :]
            of_x = made.flatten(1, 2).flatten(2)[..., rest : rest + T]
        return of_x, of_weight, None, None, None


def grouped_conv1d(x: Tensor, weight: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """Compute F.conv1d without bias and dilation, in the type that autocast computes in.

    Args:
        x: [B, C_in, T].
        weight: [C_out, C_in / groups, K].
        stride: frames of x per frame of the result.
        padding: zeros before and after x.
        groups: divides C_in and C_out.

    Returns:
        [B, C_out, T'], in any layout.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    return _GroupedConv1d.apply(x, weight, stride, padding, groups)
