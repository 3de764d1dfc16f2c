"""Posterior encoder: linear spectrogram to the latent variable z."""

import torch
from torch import Tensor, nn

from trainable.networks.layers.modules import WN
from trainable.networks.layers.segments import sequence_mask


class PosteriorEncoder(nn.Module):
    """q(z | spectrogram, speaker) of VITS (section 2.5): a WaveNet stack and a normal distribution.

    Args:
        in_channels: bins of the linear spectrogram.
        out_channels: channels of z.
        hidden_channels: width of the stack.
        kernel_size: kernel of its convolutions.
        dilation_rate: growth of the dilation from layer to layer.
        n_layers: number of layers.
        gin_channels: channels of the speaker; 0 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        kernel_size: int,
        dilation_rate: int,
        n_layers: int,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        self.pre = nn.Conv1d(in_channels, hidden_channels, 1)
        self.enc = WN(hidden_channels, kernel_size, dilation_rate, n_layers, gin_channels)
        self.proj = nn.Conv1d(hidden_channels, 2 * out_channels, 1)

    def forward(
        self, x: Tensor, x_lengths: Tensor, g: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw z by the reparametrisation z = m_q + exp(logs_q) * noise.

        Args:
            x: [B, spec, T_y] linear spectrogram.
            x_lengths: [B] int64 frames.
            g: [B, gin, 1] speaker, or None.

        Returns:
            z, m_q, logs_q, each [B, out, T_y], and y_mask [B, 1, T_y].
        """
        mask = sequence_mask(x_lengths, x.size(2)).unsqueeze(1).to(x.dtype)
        hidden = self.enc(self.pre(x) * mask, mask, g)
        # fp32 as the mask, under autocast too: in half precision other noise is drawn
        m_q, logs_q = (self.proj(hidden) * mask).chunk(2, dim=1)
        z = (m_q + torch.randn_like(m_q) * torch.exp(logs_q)) * mask
        return z, m_q, logs_q, mask
