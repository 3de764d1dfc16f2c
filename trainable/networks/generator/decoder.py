"""Waveform decoder: HiFi-GAN's generator on the latent variable z."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.networks.layers.modules import LRELU_SLOPE, ResBlock1, ResBlock2, masked
from trainable.networks.layers.recompute import recomputed
from trainable.networks.layers.weight_norm import Conv1d, WeightNormConvTranspose1d, channels_last

RESBLOCKS: dict[str, type[ResBlock1] | type[ResBlock2]] = {"1": ResBlock1, "2": ResBlock2}


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
        recompute: whether the residual blocks' activations are computed again in the backward pass,
            to save memory.
    """

    recompute = False

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
                f"upsample_initial_channel ({upsample_initial_channel}) must be at least 2 ** {len(upsample_rates)}: "
                "every stage halves it"
            )
        # All convolutions start as PyTorch starts them. HiFi-GAN's N(0, 0.01) was written to the
        # product of weight normalisation, which is computed anew, so no published model began with
        # it; it would begin ten times quieter.
        self.num_kernels = len(resblock_kernel_sizes)
        self.upsample_rates = tuple(upsample_rates)
        self.conv_pre = nn.Conv1d(initial_channel, upsample_initial_channel, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = upsample_initial_channel
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            if kernel < rate or (kernel - rate) % 2 != 0:
                raise ValueError(
                    f"upsample_kernel_sizes: {kernel} must be {rate} (its rate) plus an even number"
                )
            self.ups.append(
                WeightNormConvTranspose1d(
                    channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2
                )
            )
            channels //= 2
            for block_kernel, dilations in zip(
                resblock_kernel_sizes, resblock_dilation_sizes, strict=True
            ):
                self.resblocks.append(RESBLOCKS[resblock](channels, block_kernel, dilations))
        self.conv_post = Conv1d(channels, 1, 7, padding=3, bias=False)
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, upsample_initial_channel, 1)

    def forward(self, x: Tensor, g: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Decodes latent frames.

        Args:
            x: [B, initial_channel, T] frames, zero where the mask is.
            g: [B, gin, 1] speaker, or None.
            mask: [B, 1, T], ones and then zeros: each item gives what it would give without its
                padding. None where nothing is padding, or where the end may hear it.

        Returns:
            [B, 1, T * hop] waveform in (-1, 1).
        """
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
