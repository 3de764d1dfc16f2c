"""Multi-period discriminator of HiFi-GAN, with one scale discriminator, as in VITS."""

import torch
from torch import Tensor, nn

from trainable.networks.layers.modules import LRELU_SLOPE
from trainable.networks.layers.recompute import recomputed
from trainable.networks.layers.weight_norm import (
    activated,
    joined_weights,
    normed_conv1d,
    normed_conv2d,
)
from trainable.networks.registry import Blueprint

PERIODS = (2, 3, 5, 7, 11)


class DiscriminatorP(nn.Module):
    """Discriminator of one period: the waveform folded into columns (HiFi-GAN section 2.3)."""

    def __init__(
        self,
        period: int,
        kernel_size: int = 5,
        stride: int = 3,
        use_spectral_norm: bool = False,
        width_divisor: int = 1,
    ) -> None:
        super().__init__()
        self.period = period
        # Long columns are convolved one by one, as a batch: with oneDNN that is faster than two
        # dimensions of which one is 2 or 3 (docs/performance.md). Spectral norm's convolutions take
        # two dimensions only.
        self.columns_as_batch = period <= 3 and not use_spectral_norm
        widths = (1, *(width // width_divisor for width in (32, 128, 512, 1024, 1024)))
        strides = (stride, stride, stride, stride, 1)
        self.convs = nn.ModuleList(
            normed_conv2d(
                n_in,
                n_out,
                (kernel_size, 1),
                (step, 1),
                padding=(kernel_size // 2, 0),
                use_spectral_norm=use_spectral_norm,
            )
            for n_in, n_out, step in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.conv_post = normed_conv2d(
            widths[-1], 1, (3, 1), 1, padding=(1, 0), use_spectral_norm=use_spectral_norm
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge a waveform: [B, 1, T] -> logits [B, N], feature maps of [B, C, T', period]."""
        # rounded up in the form that inductor knows to be positive, whatever the length
        rows = 1 + (x.size(2) - 1) // self.period
        missing = rows * self.period - x.size(2)
        if missing:
            # reflection; F.pad's backward pass is not deterministic on CUDA
            x = torch.cat([x, x[:, :, -missing - 1 : -1].flip(2)], dim=2)
        x = x.unflatten(2, (rows, self.period))
        if self.columns_as_batch:
            x = x.permute(0, 3, 1, 2).flatten(0, 1)  # [B * period, 1, T']
        fmap = []
        for conv in self.convs:
            x = activated(conv, x, LRELU_SLOPE)
            fmap.append(x)
        fmap.append(self.conv_post(x))
        if self.columns_as_batch:
            fmap = [x.unflatten(0, (-1, self.period)).permute(0, 2, 3, 1) for x in fmap]
        return fmap[-1].flatten(1), fmap


class DiscriminatorS(nn.Module):
    """Discriminator of the raw waveform (MelGAN, Kumar et al., 2019, arXiv:1910.06711)."""

    def __init__(self, use_spectral_norm: bool = False, width_divisor: int = 1) -> None:
        super().__init__()
        widths = (1, *(width // width_divisor for width in (16, 64, 256, 1024, 1024, 1024)))
        # size, stride, groups
        kernels = ((15, 1, 1), (41, 4, 4), (41, 4, 16), (41, 4, 64), (41, 4, 256), (5, 1, 1))
        self.convs = nn.ModuleList(
            normed_conv1d(
                n_in,
                n_out,
                kernel,
                stride,
                groups=max(1, groups // width_divisor),
                padding=kernel // 2,
                use_spectral_norm=use_spectral_norm,
            )
            for n_in, n_out, (kernel, stride, groups) in zip(
                widths[:-1], widths[1:], kernels, strict=True
            )
        )
        self.conv_post = normed_conv1d(
            widths[-1], 1, 3, 1, padding=1, use_spectral_norm=use_spectral_norm
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge a waveform: [B, 1, T] -> logits [B, N], feature maps of [B, C, T']."""
        fmap = []
        for conv in self.convs:
            x = activated(conv, x, LRELU_SLOPE)
            fmap.append(x)
        x = self.conv_post(x)
        fmap.append(x)
        return x.flatten(1), fmap


class MultiPeriodDiscriminator(nn.Module):
    """One DiscriminatorS, and a DiscriminatorP for each of the periods 2, 3, 5, 7, 11.

    Args:
        use_spectral_norm: spectral instead of weight normalisation.
        width_divisor: divides channels and groups, a power of two up to 16; for demos and tests.

    Attributes:
        recompute: whether activations are computed again in the backward pass, to save memory; the
            feature maps, which losses read, are kept all the same.
    """

    recompute = False

    def __init__(self, use_spectral_norm: bool = False, width_divisor: int = 1) -> None:
        super().__init__()
        self.use_spectral_norm = use_spectral_norm
        if width_divisor not in (1, 2, 4, 8, 16):
            raise ValueError(
                f"discriminator_width_divisor must be 1, 2, 4, 8 or 16, got {width_divisor}"
            )
        self.discriminators = nn.ModuleList([DiscriminatorS(use_spectral_norm, width_divisor)])
        for period in PERIODS:
            self.discriminators.append(
                DiscriminatorP(
                    period, use_spectral_norm=use_spectral_norm, width_divisor=width_divisor
                )
            )

    def discriminate(self, y: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Judge one batch of waveforms.

        Args:
            y: [B, 1, T] waveform.

        Returns:
            For each discriminator its logits [B, N], and its list of feature maps.
        """
        logits: list[Tensor] = []
        fmaps: list[list[Tensor]] = []
        with joined_weights(self):
            for discriminator in self.discriminators:
                logit, fmap = recomputed(discriminator, y, enabled=self.recompute)
                logits.append(logit)
                fmaps.append(fmap)
        return logits, fmaps

    def forward(
        self, y: Tensor, y_hat: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]], list[list[Tensor]]]:
        """Judge real and generated waveforms.

        With weight normalisation both run as one batch, so that the weights are computed once.
        Spectral normalisation updates its buffers at every call, so there each batch has a call of
        its own, real first.

        Args:
            y: [B, 1, T] real.
            y_hat: [B, 1, T] generated.

        Returns:
            Logits of the real and of the generated batch, feature maps of the real and of the
            generated batch.
        """
        if self.use_spectral_norm:
            y_d_rs, fmap_rs = self.discriminate(y)
            y_d_gs, fmap_gs = self.discriminate(y_hat)
            return y_d_rs, y_d_gs, fmap_rs, fmap_gs

        batch = y.size(0)
        logits, fmaps = self.discriminate(torch.cat([y, y_hat]))
        halves = [logit.split(batch) for logit in logits]
        return (
            [real for real, _ in halves],
            [generated for _, generated in halves],
            [[feature[:batch] for feature in fmap] for fmap in fmaps],
            [[feature[batch:] for feature in fmap] for fmap in fmaps],
        )


def build(blueprint: Blueprint) -> MultiPeriodDiscriminator:
    """Build the discriminator that the configuration asks for."""
    model = blueprint.model
    return MultiPeriodDiscriminator(model.use_spectral_norm, model.discriminator_width_divisor)
