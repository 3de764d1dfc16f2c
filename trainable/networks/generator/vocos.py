"""Vocos: a decoder that works at the rate of the frames and leaves the rest to an inverse STFT."""

import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.precision import fixed_product, widen
from trainable.model_config import ModelConfig
from trainable.networks.layers.modules import LayerNorm, masked
from trainable.networks.layers.recompute import recomputed

LARGEST_MAGNITUDE = 100.0  # of a bin, as in Vocos: the exponential must not overflow
INITIAL_STD = 0.02  # of all weights, as in ConvNeXt


class ConvNeXtBlock(nn.Module):
    """Residual block of ConvNeXt (Liu et al., 2022, arXiv:2201.03545) in one dimension.

    Args:
        channels: channels in and out.
        expanded_channels: channels between its two pointwise layers.
        initial_scale: first value of the factors on what it adds.
    """

    def __init__(self, channels: int, expanded_channels: int, initial_scale: float) -> None:
        super().__init__()
        self.around = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm(channels)
        self.expand = nn.Conv1d(channels, expanded_channels, 1)
        self.contract = nn.Conv1d(expanded_channels, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1), initial_scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Refine frames: [B, channels, T] and a mask [B, 1, T] -> [B, channels, T]."""
        hidden = self.norm(self.around(masked(x, mask)))
        return x + self.scale * self.contract(F.gelu(self.expand(hidden)))


class InverseSTFT(nn.Module):
    """Inverse short-time Fourier transform with a Hann window, by one product of matrices.

    Frames stand in the middle of their `hop_length` samples, so that T frames make exactly
    T * hop_length samples ("same" padding in Vocos).

    Args:
        fft_size: points of the transform and of the window, a multiple of twice the hop.
        hop_length: samples between two frames.
    """

    basis: Tensor
    squared_window: Tensor

    def __init__(self, fft_size: int, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.overlap = fft_size // hop_length
        self.trimmed = (fft_size - hop_length) // 2
        window = torch.hann_window(fft_size, dtype=torch.double)
        self.register_buffer("basis", _inverse_basis(window).float(), persistent=False)
        squared = window.square().float()[:, None]
        self.register_buffer("squared_window", squared, persistent=False)

    def forward(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the waveform of a spectrum.

        Args:
            spectrum: [B, fft_size + 2, T] real parts of the bins, then imaginary ones.
            mask: [B, 1, T]; frames outside it add nothing. None: all count.

        Returns:
            [B, 1, T * hop_length].
        """
        # the same for all items where nothing is padding
        counted = spectrum.new_ones(1, 1, spectrum.size(2)) if mask is None else mask
        wave = self._overlap_add(fixed_product(self.basis, masked(spectrum, mask)))
        weight = self._overlap_add(self.squared_window * counted)
        return (wave / weight.clamp_min(1e-6)).unsqueeze(1)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Lay frames over each other and cut the ends: [B, fft_size, T] -> [B, T * hop_length]."""
        # plain additions: the same order on every device, unlike a scatter
        parts = frames.unflatten(1, (self.overlap, self.hop_length))
        total = F.pad(parts[:, 0], (0, self.overlap - 1))
        for index in range(1, self.overlap):
            total = total + F.pad(parts[:, index], (index, self.overlap - 1 - index))
        wave = total.transpose(1, 2).flatten(1)
        return wave[:, self.trimmed : wave.size(1) - self.trimmed]


class Vocos(nn.Module):
    """Decoder of Vocos (Siuzdak, 2023, arXiv:2306.00814).

    A ConvNeXt predicts magnitude and phase of each frame; an inverse STFT makes the samples. It
    computes a fraction of what HiFi-GAN does, which suits small voices and CPUs.

    Args:
        initial_channel: channels of z.
        channels: width of the blocks.
        layers: number of blocks.
        fft_size: points of the inverse STFT.
        hop_length: samples per frame.
        gin_channels: channels of the speaker; 0 leaves it out.

    Attributes:
        recompute: see `Decoder`; here of the blocks' activations.
    """

    recompute = False
    sized_by: ClassVar[str] = "model.vocos.hop_length"

    def __init__(
        self,
        initial_channel: int,
        channels: int,
        layers: int,
        fft_size: int,
        hop_length: int,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(initial_channel, channels, 7, padding=3)
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, channels, 1)
        self.norm_pre = LayerNorm(channels)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(channels, 3 * channels, 1 / layers) for _ in range(layers)
        )
        self.norm_post = LayerNorm(channels)
        self.conv_post = nn.Conv1d(channels, fft_size + 2, 1)
        self.to_wave = InverseSTFT(fft_size, hop_length)
        self.apply(_initialise)

    @classmethod
    def from_config(cls, model: ModelConfig) -> Self:
        """Make the decoder that a configuration asks for; see `Decoder`."""
        own = model.vocos
        return cls(
            model.inter_channels,
            own.channels,
            own.layers,
            own.fft_size,
            own.hop_length,
            gin_channels=model.gin_channels,
        )

    @classmethod
    def samples_per_frame(cls, model: ModelConfig) -> int:
        """Return how many samples it makes of a frame."""
        return model.vocos.hop_length

    def forward(self, x: Tensor, g: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Decode latent frames; see `Decoder`."""
        x = self.conv_pre(x)
        if g is not None:
            x = x + self.cond(g)
        x = self.norm_pre(x)
        for block in self.blocks:
            x = recomputed(block, x, mask, enabled=self.recompute)
        x = self.conv_post(self.norm_post(x))
        with torch.autocast(x.device.type, enabled=False):
            spectrum = _complex_bins(widen(x))
            return torch.tanh(self.to_wave(spectrum, mask))


def _complex_bins(x: Tensor) -> Tensor:
    """Return real and imaginary parts, [B, N, T], of log magnitudes and phases, [B, N, T]."""
    log_magnitude, phase = x.chunk(2, dim=1)
    magnitude = log_magnitude.clamp(max=math.log(LARGEST_MAGNITUDE)).exp()
    return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def _inverse_basis(window: Tensor) -> Tensor:
    """Return the windowed inverse DFT of real signals: [N] -> [N, N + 2] (real, imaginary)."""
    size = len(window)
    bins = torch.arange(size // 2 + 1, dtype=torch.double)
    angle = 2 * math.pi / size * torch.arange(size, dtype=torch.double)[:, None] * bins
    twice = torch.full_like(bins, 2.0)  # each bin but the outer ones stands for its mirror too
    twice[[0, -1]] = 1.0
    scale = twice / size * window[:, None]
    return torch.cat([scale * angle.cos(), -scale * angle.sin()], dim=1)


def _initialise(module: nn.Module) -> None:
    """Draw the weights of a layer as ConvNeXt does."""
    if isinstance(module, nn.Conv1d):
        nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
