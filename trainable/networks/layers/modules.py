"""Building blocks shared by several networks: normalisation, dropout, WaveNet, residual blocks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.bias import add_bias, add_bias_to_both
from trainable.networks.kernels.convolutions.gate import Gate
from trainable.networks.layers.weight_norm import WeightNormConv1d, activated

LRELU_SLOPE = 0.1  # HiFi-GAN's leaky ReLU


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x [B, C, T], zero where the mask [B, 1, T] is; None masks nothing."""
    return x if mask is None else x * mask


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of [B, C, T]."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, T] -> [B, C, T]."""
        last = x.transpose(1, 2)
        normed = F.layer_norm(last, (self.channels,), self.gamma, self.beta, self.eps)
        return normed.transpose(1, 2)


class Dropout(nn.Dropout):
    """nn.Dropout that draws its masks three times as fast on a CPU.

    A CPU's generator gives one number after another. Four elements share a draw of 64 bits, so the
    probability is a multiple of 2^-16: 0.10000610 for 0.1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of [...] -> [...]."""
        as_torch = x.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or self.p == 0.0 or as_torch:
            return super().forward(x)
        quarter = -(-x.numel() // 4)
        draws = torch.empty(quarter, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        dropped = round(self.p * 2**16)
        keep = torch.empty_like(x)  # in the layout of x, filled in the order of memory
        flat = keep.as_strided((x.numel(),), (1,))
        torch.ge(draws[: x.numel()], dropped - 2**15, out=flat)
        return x * keep.mul_(2**16 / (2**16 - dropped))


class WN(nn.Module):
    """Non-causal WaveNet stack (WaveGlow, Prenger et al., 2019, arXiv:1811.00002; VITS 2.5).

    Each layer is a dilated convolution with a tanh-sigmoid gate, a residual and a skip output; the
    speaker is added before the gate.
    """

    def __init__(
        self,
        hidden_channels: int,
        kernel_size: int,
        dilation_rate: int,
        n_layers: int,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.hidden_channels = hidden_channels
        self.n_layers = n_layers
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        for i in range(n_layers):
            dilation = dilation_rate**i
            self.in_layers.append(
                WeightNormConv1d(
                    hidden_channels,
                    2 * hidden_channels,
                    kernel_size,
                    dilation=dilation,
                    padding="same",
                )
            )
            # the last layer has no residual output
            out_channels = 2 * hidden_channels if i < n_layers - 1 else hidden_channels
            self.res_skip_layers.append(WeightNormConv1d(hidden_channels, out_channels, 1))
        if gin_channels > 0:
            self.cond_layer = WeightNormConv1d(gin_channels, 2 * hidden_channels * n_layers, 1)
        self.gin_channels = gin_channels

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Run the stack.

        Args:
            x: [B, hidden, T].
            x_mask: [B, 1, T].
            g: [B, gin, 1] speaker, or None.

        Returns:
            Sum of the skip outputs, [B, hidden, T], zero in the padding.
        """
        hidden = self.hidden_channels
        conditions = self.cond_layer(g).chunk(self.n_layers, dim=1) if g is not None else None
        layers = zip(self.in_layers, self.res_skip_layers, strict=True)
        skips: Tensor | None = None
        for i, (in_layer, res_skip_layer) in enumerate(layers):
            condition = None if conditions is None else conditions[i]
            res_skip = res_skip_layer(_gated(in_layer, x, condition))
            skip = res_skip
            if i < self.n_layers - 1:
                residual, skip = res_skip.split(hidden, dim=1)
                x = (x + residual) * x_mask
            skips = skip if skips is None else skips + skip
        assert skips is not None
        return skips * x_mask


def _gated(conv: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """Return tanh(a) * sigmoid(b) of the halves of a convolution of x, [B, hidden, T].

    Args:
        conv: WeightNormConv1d to 2 * hidden channels.
        x: [B, hidden, T].
        condition: [B, 2 * hidden, 1] that is added, or None.
    """
    assert isinstance(conv, WeightNormConv1d)
    if support.joined(x):
        assert conv.bias is not None
        shift = conv.bias.expand(x.size(0), -1)
        shift = shift if condition is None else shift + condition.squeeze(2)
        return Gate.apply(conv.without_bias(x), shift)
    gates = conv(x)
    if condition is not None:
        gates = gates + condition
    filtered, gate = gates.chunk(2, dim=1)
    return torch.tanh(filtered) * torch.sigmoid(gate)


class ResBlock1(nn.Module):
    """HiFi-GAN's residual block V1 (Kong et al., 2020, arXiv:2010.05646).

    Pairs of a dilated and a plain convolution.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            WeightNormConv1d(channels, channels, kernel_size, dilation=d, padding="same")
            for d in dilation
        )
        self.convs2 = nn.ModuleList(
            WeightNormConv1d(channels, channels, kernel_size, padding="same") for _ in dilation
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x [B, C, T] -> [B, C, T]; all convolutions read zeros where the mask is zero.

        Args:
            x: [B, C, T].
            mask: [B, 1, T]; None masks nothing.
        """
        if mask is None and support.joined(x):
            return self._joined(x)
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = masked(dilated(F.leaky_relu(x, LRELU_SLOPE)), mask)
            x = masked(x + plain(F.leaky_relu(y, LRELU_SLOPE)), mask)
        return x

    def _joined(self, x: Tensor) -> Tensor:
        """Compute `forward` with few kernels, for GPUs."""
        heard = F.leaky_relu(x, LRELU_SLOPE)
        for i, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            assert isinstance(plain, WeightNormConv1d)
            y = plain.without_bias(activated(dilated, heard, LRELU_SLOPE))
            bias = plain.bias
            assert bias is not None
            if i == len(self.convs1) - 1:
                return add_bias(y, bias, residual=x)
            heard, x = add_bias_to_both(y, bias, LRELU_SLOPE, residual=x)
        return x


class ResBlock2(nn.Module):
    """HiFi-GAN's lighter residual block (V3): two dilated convolutions; more are not used."""

    def __init__(self, channels: int, kernel_size: int, dilation: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            WeightNormConv1d(channels, channels, kernel_size, dilation=d, padding="same")
            for d in dilation[:2]
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x [B, C, T] -> [B, C, T]; all convolutions read zeros where the mask is zero.

        Args:
            x: [B, C, T].
            mask: [B, 1, T]; None masks nothing.
        """
        for dilated in self.convs:
            x = masked(x + dilated(F.leaky_relu(x, LRELU_SLOPE)), mask)
        return x
