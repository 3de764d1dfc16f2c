"""Waveform decoders: what the generator asks of one, and which there are.

A new decoder is one class that keeps to `Decoder`, with a line in `DECODERS`; `model.decoder`
chooses it.
"""

import inspect
import math
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.model_config import ModelConfig
from trainable.networks.generator.vocos import Vocos
from trainable.networks.layers.modules import LRELU_SLOPE, ResBlock1, ResBlock2, masked
from trainable.networks.layers.recompute import recomputed
from trainable.networks.layers.weight_norm import Conv1d, WeightNormConvTranspose1d, channels_last

RESBLOCKS: dict[str, type[ResBlock1] | type[ResBlock2]] = {"1": ResBlock1, "2": ResBlock2}


class Decoder(Protocol):
    """A network from latent frames to a waveform; an nn.Module.

    Its normalised weights are computed once where `fixed_weights` surrounds it, if its layers are
    those of trainable.networks.layers.weight_norm.

    Attributes:
        recompute: whether activations are computed again in the backward pass, to save memory; set
            from outside. One that cannot do so has it too, and ignores it.
        sized_by: configuration keys that decide `samples_per_frame`, for error messages.
    """

    recompute: bool
    sized_by: ClassVar[str]

    @classmethod
    def from_config(cls, model: ModelConfig) -> Self:
        """Make the decoder that a configuration asks for.

        Args:
            model: `inter_channels` are the channels of z, `gin_channels` those of the speaker.

        Raises:
            ValueError: sizes that do not fit each other; names the keys.
        """

    @classmethod
    def samples_per_frame(cls, model: ModelConfig) -> int:
        """Return how many samples it makes of a frame, which must be data.hop_length."""

    def __call__(self, x: Tensor, g: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Decode latent frames.

        Args:
            x: [B, inter_channels, T] frames, zero where the mask is.
            g: [B, gin_channels, 1] speaker; None leaves it out.
            mask: [B, 1, T], ones and then zeros: each item gives what it would give without its
                padding. None where nothing is padding (training), or where it may change the end.

        Returns:
            [B, 1, T * samples_per_frame] waveform in (-1, 1).
        """


class Generator(nn.Module):
    """HiFi-GAN generator (Kong et al., 2020, arXiv:2010.05646).

    Transposed convolutions, each followed by the mean of residual blocks with different receptive
    fields.

    Args:
        initial_channel: channels of z.
        resblock: "1" or "2".
        resblock_kernel_sizes: kernel sizes of the residual blocks of a stage.
        resblock_dilation_sizes: dilations of each of them.
        upsample_rates: factors of the stages; their product is the hop length in samples.
        upsample_initial_channel: channels before the first stage; halved by every stage.
        upsample_kernel_sizes: kernel sizes of the transposed convolutions.
        gin_channels: channels of the speaker; 0 leaves it out.

    Attributes:
        recompute: see `Decoder`; here of the residual blocks' activations.
    """

    recompute = False
    sized_by: ClassVar[str] = "model.upsample_rates"

    def __init__(
        self,
        initial_channel: int,
        resblock: str,
        resblock_kernel_sizes: Sequence[int],
        resblock_dilation_sizes: Sequence[Sequence[int]],
        upsample_rates: Sequence[int],
        upsample_initial_channel: int,
        upsample_kernel_sizes: Sequence[int],
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        if resblock not in RESBLOCKS:
            raise ValueError(f'resblock must be "1" or "2", got {resblock!r}')
        if len(upsample_rates) != len(upsample_kernel_sizes):
            raise ValueError(
                f"upsample_kernel_sizes needs one entry for each of upsample_rates: "
                f"{len(upsample_kernel_sizes)} != {len(upsample_rates)}"
            )
        if len(resblock_kernel_sizes) != len(resblock_dilation_sizes):
            raise ValueError(
                f"resblock_dilation_sizes needs one entry for each of resblock_kernel_sizes: "
                f"{len(resblock_dilation_sizes)} != {len(resblock_kernel_sizes)}"
            )
        if upsample_initial_channel < 2 ** len(upsample_rates):
            raise ValueError(
                f"upsample_initial_channel ({upsample_initial_channel}) must be at least "
                f"2 ** {len(upsample_rates)}: every stage halves it"
            )
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            if kernel < rate or (kernel - rate) % 2 != 0:
                raise ValueError(
                    f"upsample_kernel_sizes: {kernel} must be {rate} (its rate) plus an even number"
                )

        # All convolutions start as PyTorch starts them. HiFi-GAN's N(0, 0.01) was written to the
        # product of weight normalisation, which every forward pass computes again, so no published
        # model began with it; it would begin ten times quieter.
        self.num_kernels = len(resblock_kernel_sizes)
        self.upsample_rates = tuple(upsample_rates)
        self.conv_pre = nn.Conv1d(initial_channel, upsample_initial_channel, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        block = RESBLOCKS[resblock]
        channels = upsample_initial_channel
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            padding = (kernel - rate) // 2
            self.ups.append(
                WeightNormConvTranspose1d(channels, channels // 2, kernel, rate, padding=padding)
            )
            channels //= 2
            sizes = zip(resblock_kernel_sizes, resblock_dilation_sizes, strict=True)
            self.resblocks.extend(block(channels, size, dilations) for size, dilations in sizes)
        self.conv_post = Conv1d(channels, 1, 7, padding=3, bias=False)
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, upsample_initial_channel, 1)

    @classmethod
    def from_config(cls, model: ModelConfig) -> Self:
        """Make the decoder that a configuration asks for; see `Decoder`."""
        return cls(
            model.inter_channels,
            model.resblock,
            model.resblock_kernel_sizes,
            model.resblock_dilation_sizes,
            model.upsample_rates,
            model.upsample_initial_channel,
            model.upsample_kernel_sizes,
            gin_channels=model.gin_channels,
        )

    @classmethod
    def samples_per_frame(cls, model: ModelConfig) -> int:
        """Return how many samples it makes of a frame."""
        return math.prod(model.upsample_rates)

    def forward(self, x: Tensor, g: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Decode latent frames; see `Decoder`."""
        x = self.conv_pre(x)
        if g is not None:
            x = x + self.cond(g)
        x = channels_last(masked(x, mask))
        for i, (upsample, rate) in enumerate(zip(self.ups, self.upsample_rates, strict=True)):
            mask = None if mask is None else mask.repeat_interleave(rate, 2)
            x = masked(upsample(F.leaky_relu(x, LRELU_SLOPE)), mask)
            blocks = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            total = recomputed(blocks[0], x, mask, enabled=self.recompute)
            for block in blocks[1:]:
                total = total + recomputed(block, x, mask, enabled=self.recompute)
            x = total / self.num_kernels
        x = self.conv_post(F.leaky_relu(x))  # PyTorch's default slope, as in HiFi-GAN
        return torch.tanh(x)


DECODERS: dict[str, type[Decoder]] = {"hifigan": Generator, "vocos": Vocos}
"""What `model.decoder` may be."""


def decoder_of(model: ModelConfig) -> type[Decoder]:
    """Return the kind of decoder that a configuration asks for.

    Raises:
        ValueError: there is none of this name.
    """
    if model.decoder not in DECODERS:
        raise ValueError(
            f"model.decoder is {model.decoder!r}: use one of {', '.join(sorted(DECODERS))}"
        )
    return DECODERS[model.decoder]


def build_decoder(model: ModelConfig) -> nn.Module:
    """Make the decoder that a configuration asks for.

    Raises:
        ValueError: there is none of this name, or its sizes do not fit.
        TypeError: it does not keep to `Decoder`.
    """
    decoder = decoder_of(model).from_config(model)
    assert isinstance(decoder, nn.Module)
    check_decoder(decoder)
    return decoder


def check_decoder(decoder: nn.Module) -> None:
    """Refuse a network that does not keep to `Decoder`, before it trains for days.

    Raises:
        TypeError: names what it lacks.
    """
    name = type(decoder).__name__
    taken = inspect.signature(decoder.forward).parameters
    if not {"g", "mask"} <= taken.keys():
        raise TypeError(
            f"{name}.forward takes ({', '.join(taken)}): a decoder takes latent frames, g and mask"
        )
    if not hasattr(decoder, "recompute"):
        raise TypeError(f"{name} has no attribute recompute, which every decoder has")
