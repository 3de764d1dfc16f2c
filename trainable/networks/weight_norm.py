"""Convolutions with normalised weights.

Weight normalisation (Salimans and Kingma, 2016, arXiv:1602.07868): w = g * v / ||v||, the norm taken per slice of
the first dimension. The parameters are called weight_g and weight_v, as in published checkpoints. The weight is
computed in forward and kept nowhere, so the modules can be copied and pickled at any time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


def _split_weight(module: nn.Module) -> None:
    """Replaces the parameter weight by weight_g (norms) and weight_v (direction); the product is unchanged."""
    weight = module.get_parameter("weight").detach()
    del module.weight
    module.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
    module.weight_v = nn.Parameter(weight)


class WeightNormConv1d(nn.Conv1d):
    """nn.Conv1d with weight normalisation."""

    weight_g: Tensor
    weight_v: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_weight(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, T] -> [B, C_out, T']."""
        return self._conv_forward(x, torch._weight_norm(self.weight_v, self.weight_g, 0), self.bias)


class WeightNormConv2d(nn.Conv2d):
    """nn.Conv2d with weight normalisation."""

    weight_g: Tensor
    weight_v: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_weight(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H', W']."""
        return self._conv_forward(x, torch._weight_norm(self.weight_v, self.weight_g, 0), self.bias)


class WeightNormConvTranspose1d(nn.ConvTranspose1d):
    """nn.ConvTranspose1d with weight normalisation (per input channel: the first dimension of its weight)."""

    weight_g: Tensor
    weight_v: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _split_weight(self)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C_in, T] -> [B, C_out, T']."""
        assert output_size is None
        assert isinstance(self.padding, tuple)
        weight = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return F.conv_transpose1d(
            x, weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


def normed_conv1d(*args: Any, use_spectral_norm: bool, **kwargs: Any) -> nn.Module:
    """A Conv1d of a discriminator: spectral norm (Miyato et al., 2018, arXiv:1802.05957) or weight norm."""
    return spectral_norm(nn.Conv1d(*args, **kwargs)) if use_spectral_norm else WeightNormConv1d(*args, **kwargs)


def normed_conv2d(*args: Any, use_spectral_norm: bool, **kwargs: Any) -> nn.Module:
    """A Conv2d of a discriminator: spectral norm or weight norm."""
    return spectral_norm(nn.Conv2d(*args, **kwargs)) if use_spectral_norm else WeightNormConv2d(*args, **kwargs)
