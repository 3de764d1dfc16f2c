"""Convolutions with normalised weights.

Weight normalisation (Salimans and Kingma, 2016, arXiv:1602.07868): w = g * v / ||v||, the norm
taken per slice of the first dimension. The parameters are called weight_g and weight_v, as in
published checkpoints. The weight is computed in forward and kept nowhere (but see `fixed_weights`),
so the modules can be copied and pickled at any time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


def channels_last(x: Tensor) -> Tensor:
    """[B, C, T], on a CPU with the channels last in memory: see `conv1d`."""
    return x.transpose(1, 2).contiguous().transpose(1, 2) if x.device.type == "cpu" else x


def conv1d(x: Tensor, weight: Tensor, conv: nn.Conv1d) -> Tensor:
    """What `conv` computes with this weight; on a CPU it keeps the layout of inputs that have the channels last.

    oneDNN's convolutions read and write that layout as it is. torch makes three-dimensional inputs
    contiguous, which oneDNN reorders before and after; with few channels that takes as long as the
    convolution. So they get a fourth dimension.

    Args:
        x: [B, C_in, T].
        weight: [C_out, C_in / groups, K].
        conv: its bias, stride, padding, dilation and groups.

    Returns:
        [B, C_out, T'].
    """
    if not has_channels_last(x):
        return conv._conv_forward(x, weight, conv.bias)
    padding = conv.padding if isinstance(conv.padding, str) else (0, *conv.padding)
    stride, dilation = (1, *conv.stride), (1, *conv.dilation)
    made = F.conv2d(
        x.unsqueeze(2), weight.unsqueeze(2), conv.bias, stride, padding, dilation, conv.groups
    )
    return made.squeeze(2)


class Conv1d(nn.Conv1d):
    """nn.Conv1d in any layout: see `conv1d`."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, T] -> [B, C_out, T']."""
        return conv1d(x, self.weight, self)


def has_channels_last(x: Tensor) -> bool:
    """Whether [B, C, T] lies on a CPU with its channels, more than one, last in memory."""
    return (
        x.device.type == "cpu" and x.size(1) > 1 and x.stride(1) == 1 and x.stride(2) == x.size(1)
    )


class _WeightNorm(nn.Module):
    """Replaces a module's parameter weight by weight_g (norms) and weight_v (direction); the product is unchanged."""

    weight_g: Tensor
    weight_v: Tensor
    fixed: Tensor | None = None  # the product, inside `fixed_weights`

    def split_weight(self) -> None:
        """Called once, at the end of the module's constructor."""
        weight = self.get_parameter("weight").detach()
        del self.weight
        self.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
        self.weight_v = nn.Parameter(weight)

    def normed_weight(self) -> Tensor:
        """The weight, [C_out, C_in, ...] or, of a transposed convolution, [C_in, C_out, ...]."""
        return (
            torch._weight_norm(self.weight_v, self.weight_g, 0)
            if self.fixed is None
            else self.fixed
        )


class WeightNormConv1d(_WeightNorm, nn.Conv1d):
    """nn.Conv1d with weight normalisation, in any layout: see `conv1d`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_weight()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, T] -> [B, C_out, T']."""
        return conv1d(x, self.normed_weight(), self)


class WeightNormConv2d(_WeightNorm, nn.Conv2d):
    """nn.Conv2d with weight normalisation; one with kernels of width 1 also takes columns, [B, C_in, H]."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_weight()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H', W'], or [B, C_in, H] -> [B, C_out, H']."""
        weight = self.normed_weight()
        if x.dim() == 4:
            return self._conv_forward(x, weight, self.bias)
        assert not isinstance(self.padding, str)
        sizes = self.stride[0], self.padding[0], self.dilation[0]
        return F.conv1d(x, weight.squeeze(3), self.bias, *sizes, self.groups)


class WeightNormConvTranspose1d(_WeightNorm, nn.ConvTranspose1d):
    """nn.ConvTranspose1d with weight normalisation (per input channel: the first dimension of its weight)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_weight()

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C_in, T] -> [B, C_out, T']."""
        assert output_size is None
        assert isinstance(self.padding, tuple)
        weight = self.normed_weight()
        if not has_channels_last(x):
            return F.conv_transpose1d(
                x,
                weight,
                self.bias,
                self.stride,
                self.padding,
                self.output_padding,
                self.groups,
                self.dilation,
            )
        stride, padding, output_padding = (
            (1, *self.stride),
            (0, *self.padding),
            (0, *self.output_padding),
        )
        x, weight, dilation = x.unsqueeze(2), weight.unsqueeze(2), (1, *self.dilation)
        made = F.conv_transpose2d(
            x, weight, self.bias, stride, padding, output_padding, self.groups, dilation
        )
        return made.squeeze(2)


@contextmanager
def fixed_weights(*nets: nn.Module) -> Iterator[None]:
    """Networks that take no gradient and stay as they are inside: their normalised weights are computed once.

    Under autocast they are rounded once, too.
    """
    modules = [
        module for net in nets for module in net.modules() if isinstance(module, _WeightNorm)
    ]
    with torch.no_grad():
        for module in modules:
            device, weight = module.weight_v.device.type, module.normed_weight()
            halved = torch.is_autocast_enabled(device)
            module.fixed = weight.to(torch.get_autocast_dtype(device)) if halved else weight
    try:
        yield
    finally:
        for module in modules:
            module.fixed = None


def normed_conv1d(*args: Any, use_spectral_norm: bool, **kwargs: Any) -> nn.Module:
    """A Conv1d of a discriminator: spectral norm (Miyato et al., 2018, arXiv:1802.05957) or weight norm."""
    return (
        spectral_norm(nn.Conv1d(*args, **kwargs))
        if use_spectral_norm
        else WeightNormConv1d(*args, **kwargs)
    )


def normed_conv2d(*args: Any, use_spectral_norm: bool, **kwargs: Any) -> nn.Module:
    """A Conv2d of a discriminator: spectral norm or weight norm."""
    return (
        spectral_norm(nn.Conv2d(*args, **kwargs))
        if use_spectral_norm
        else WeightNormConv2d(*args, **kwargs)
    )
