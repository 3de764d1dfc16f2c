"""Convolutions with normalised weights.

Weight normalisation (Salimans and Kingma, 2016, arXiv:1602.07868): w = g * v / ||v||, the norm
taken per slice of the first dimension. The parameters are called weight_g and weight_v, as in
published checkpoints. The weight is computed in forward and kept nowhere (but see `fixed_weights`
and `joined_weights`), so the modules can be copied and pickled at any time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.bias import add_bias
from trainable.networks.kernels.convolutions.casts import Casts
from trainable.networks.kernels.convolutions.grouped import grouped_conv1d
from trainable.networks.kernels.convolutions.weight_norm import JoinedWeights


def channels_last(x: Tensor) -> Tensor:
    """Return x [B, C, T], on a CPU with the channels last in memory: see `conv1d`."""
    if x.device.type != "cpu":
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def conv1d(x: Tensor, weight: Tensor, conv: nn.Conv1d) -> Tensor:
    """Compute a convolution with this weight; on a CPU it keeps channels last where they are.

    oneDNN's convolutions read and write that layout as it is. torch makes three-dimensional inputs
    contiguous, which oneDNN reorders before and after; with few channels that takes as long as the
    convolution. So they get a fourth dimension.

    Args:
        x: [B, C_in, T].
        weight: [C_out, C_in / groups, K].
        conv: convolution whose bias, stride, padding, dilation and groups are used.

    Returns:
        [B, C_out, T'].
    """
    if not has_channels_last(x):
        return contiguous_conv1d(x, weight, conv.bias, conv)
    made = F.conv2d(
        x.unsqueeze(2),
        weight.unsqueeze(2),
        conv.bias,
        stride=(1, *conv.stride),
        padding=conv.padding if isinstance(conv.padding, str) else (0, *conv.padding),
        dilation=(1, *conv.dilation),
        groups=conv.groups,
    )
    return made.squeeze(2)


def contiguous_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, conv: nn.Conv1d) -> Tensor:
    """Compute the convolution in torch's own layout; on a GPU its groups as products."""
    grouped = 1 < conv.groups < conv.in_channels and conv.dilation == (1,)
    if not grouped or isinstance(conv.padding, str) or not support.joined(x):
        return conv._conv_forward(x, weight, bias)
    made = grouped_conv1d(x, weight, conv.stride[0], conv.padding[0], conv.groups)
    return made if bias is None else made + bias.to(made.dtype)[:, None]


class Conv1d(nn.Conv1d):
    """nn.Conv1d in any layout: see `conv1d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, T] -> [B, C_out, T']."""
        return conv1d(x, self.weight, self)

    def without_bias(self, x: Tensor) -> Tensor:
        """Map [B, C_in, T] -> [B, C_out, T'], in torch's own layout."""
        return contiguous_conv1d(x, self.weight, None, self)


def has_channels_last(x: Tensor) -> bool:
    """Tell whether [B, C, T] lies on a CPU with its channels, more than one, last in memory."""
    if x.device.type != "cpu" or x.size(1) == 1:
        return False
    return x.stride(1) == 1 and x.stride(2) == x.size(1)


class _WeightNorm(nn.Module):
    """A layer whose weight is the product of weight_g (norms) and weight_v (directions)."""

    weight_g: Tensor
    weight_v: Tensor
    # the product, inside `fixed_weights` and `joined_weights`
    fixed: Tensor | None = None

    def split_weight(self) -> None:
        """Replace weight by the two, with the same product; at the end of the constructor."""
        weight = self.get_parameter("weight").detach()
        del self.weight
        self.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
        self.weight_v = nn.Parameter(weight)
        self.fixed = None  # of its own: to find it in the class first is another graph

    def normed_weight(self) -> Tensor:
        """Return the product [C_out, C_in, ...]; of a transposed convolution [C_in, C_out, ...]."""
        if self.fixed is not None:
            return self.fixed
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class WeightNormConv1d(_WeightNorm, nn.Conv1d):
    """nn.Conv1d with weight normalisation, in any layout: see `conv1d`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_weight()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, T] -> [B, C_out, T']."""
        return conv1d(x, self.normed_weight(), self)

    def without_bias(self, x: Tensor) -> Tensor:
        """Map [B, C_in, T] -> [B, C_out, T'], in torch's own layout."""
        return contiguous_conv1d(x, self.normed_weight(), None, self)


class WeightNormConv2d(_WeightNorm, nn.Conv2d):
    """nn.Conv2d with weight normalisation; kernels of width 1 also take columns, [B, C_in, H]."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_weight()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, H, W] -> [B, C_out, H', W'], or [B, C_in, H] -> [B, C_out, H']."""
        return self._convolved(x, self.bias)

    def without_bias(self, x: Tensor) -> Tensor:
        """Map the same, without the bias."""
        return self._convolved(x, None)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.normed_weight()
        if x.dim() == 4:
            return self._conv_forward(x, weight, bias)
        assert not isinstance(self.padding, str)
        sizes = self.stride[0], self.padding[0], self.dilation[0]
        return F.conv1d(x, weight.squeeze(3), bias, *sizes, self.groups)


class WeightNormConvTranspose1d(_WeightNorm, nn.ConvTranspose1d):
    """nn.ConvTranspose1d with weight normalisation, per input channel: its weight's dimension 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.split_weight()

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map [B, C_in, T] -> [B, C_out, T']."""
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
        made = F.conv_transpose2d(
            x.unsqueeze(2),
            weight.unsqueeze(2),
            self.bias,
            stride=(1, *self.stride),
            padding=(0, *self.padding),
            output_padding=(0, *self.output_padding),
            groups=self.groups,
            dilation=(1, *self.dilation),
        )
        return made.squeeze(2)


@contextmanager
def fixed_weights(*nets: nn.Module) -> Iterator[None]:
    """Compute the normalised weights of networks once, for as long as these stay as they are.

    Inside they take no gradient. Under autocast their weights are rounded once, too. Networks with
    parts that are computed again in the backward pass, when the block has ended, are left as they
    are.
    """
    modules = [module for net in nets if not recomputes(net) for module in normed_layers(net)]
    with torch.no_grad():
        weights = _computed(modules) if modules else []
    with _given(modules, weights):
        yield


@contextmanager
def joined_weights(net: nn.Module) -> Iterator[None]:
    """Compute a network's normalised weights together, with a graph, until the block ends.

    Under autocast all other weights of its convolutions and linear layers are cast together, too.
    On a GPU, where that saves many kernels. Parts that are computed again in the backward pass
    (`recompute`) would need them then as well: such a network is left as it is.
    """
    modules = [module for module in normed_layers(net) if module.fixed is None]
    if recomputes(net) or not support.joined(next(net.parameters())):
        yield
        return
    weights = _computed(modules) if modules else []
    with _given(modules, weights), _cast_weights(net):
        yield


@contextmanager
def _cast_weights(net: nn.Module) -> Iterator[None]:
    """Let layers that autocast casts the weights of have them cast already."""
    if not torch.is_autocast_enabled("cuda"):
        yield
        return
    places = [
        (module._parameters, name, weight)
        for module in net.modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d)
        for name, weight in module._parameters.items()
        if weight is not None and name in ("weight", "bias")
    ]
    own: Any = [weight for *_, weight in places]
    cast = Casts.apply(torch.get_autocast_dtype("cuda"), *own)
    try:
        for (parameters, name, _), weight in zip(places, cast, strict=True):
            parameters[name] = weight
        yield
    finally:
        for parameters, name, weight in places:
            parameters[name] = weight


def recomputes(net: nn.Module) -> bool:
    """Tell whether parts of a network are computed again in the backward pass (`recompute`)."""
    return any(getattr(module, "recompute", False) for module in net.modules())


def normed_layers(net: nn.Module) -> list[_WeightNorm]:
    """Return the layers of a network that have weight normalisation."""
    return [module for module in net.modules() if isinstance(module, _WeightNorm)]


def _computed(modules: Sequence[_WeightNorm]) -> Sequence[Tensor]:
    """Return the weights of layers, in the type that autocast computes in."""
    v = [module.weight_v for module in modules]
    dtype = v[0].dtype
    device = v[0].device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if not support.joined(v[0]):
        return [module.normed_weight().to(dtype) for module in modules]
    g = [module.weight_g for module in modules]
    return JoinedWeights.apply(_starts(tuple(part.shape for part in v), v[0].device), dtype, *v, *g)


@lru_cache(maxsize=32)
def _starts(shapes: tuple[torch.Size, ...], device: torch.device) -> Tensor:
    """Return where each row of tensors begins if they lie one after the other; int64 [rows + 1]."""
    lengths = [shape[1:].numel() for shape in shapes for _ in range(shape[0])]
    return torch.tensor([0, *accumulate(lengths)], device=device)


@contextmanager
def _given(modules: Sequence[_WeightNorm], weights: Sequence[Tensor]) -> Iterator[None]:
    """Let layers take these weights, until the block ends."""
    for module, weight in zip(modules, weights, strict=True):
        module.fixed = weight
    try:
        yield
    finally:
        for module in modules:
            module.fixed = None


def activated(conv: nn.Module, x: Tensor, slope: float) -> Tensor:
    """Return the leaky ReLU of a convolution of x, on a GPU with the bias in one kernel.

    A slope of 0 is the plain ReLU.
    """
    if isinstance(conv, Conv1d | WeightNormConv1d | WeightNormConv2d) and support.joined(x):
        assert conv.bias is not None
        return add_bias(conv.without_bias(x), conv.bias, slope)
    return F.leaky_relu(conv(x), slope) if slope else torch.relu(conv(x))


def normed_conv1d(*args: Any, use_spectral_norm: bool, **kwargs: Any) -> nn.Module:
    """Make a discriminator's Conv1d.

    It has weight norm, or spectral norm (Miyato et al., 2018, arXiv:1802.05957).
    """
    if use_spectral_norm:
        return spectral_norm(nn.Conv1d(*args, **kwargs))
    return WeightNormConv1d(*args, **kwargs)


def normed_conv2d(*args: Any, use_spectral_norm: bool, **kwargs: Any) -> nn.Module:
    """Make a discriminator's Conv2d: spectral norm or weight norm."""
    if use_spectral_norm:
        return spectral_norm(nn.Conv2d(*args, **kwargs))
    return WeightNormConv2d(*args, **kwargs)
