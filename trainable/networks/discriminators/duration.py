"""Duration discriminator (VITS2, Kong et al., 2023, arXiv:2307.16430, section 2.1)."""

import torch
from torch import Tensor, nn

from trainable.networks.layers.modules import Dropout, LayerNorm


class DurationDiscriminator(nn.Module):
    """Judges, token by token, whether durations fit the text.

    Args:
        in_channels: channels of the hidden text.
        filter_channels: width.
        kernel_size: of the convolutions, odd.
        p_dropout: dropout.
        gin_channels: channels of the speaker; 0 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        p_dropout: float,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        self.drop = Dropout(p_dropout)
        self.conv_1 = nn.Conv1d(in_channels, filter_channels, kernel_size, padding=kernel_size // 2)
        self.norm_1 = LayerNorm(filter_channels)
        self.conv_2 = nn.Conv1d(
            filter_channels, filter_channels, kernel_size, padding=kernel_size // 2
        )
        self.norm_2 = LayerNorm(filter_channels)
        self.dur_proj = nn.Conv1d(1, filter_channels, 1)
        self.LSTM = nn.LSTM(
            2 * filter_channels, filter_channels, batch_first=True, bidirectional=True
        )
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, in_channels, 1)
        self.output_layer = nn.Sequential(nn.Linear(2 * filter_channels, 1), nn.Sigmoid())

    def forward(
        self, x: Tensor, x_mask: Tensor, dur_r: Tensor, dur_hat: Tensor, g: Tensor | None = None
    ) -> list[Tensor]:
        """Judges real and predicted durations of the same text, as published weights' own forward does.

        Args:
            x: [B, in, T_x] hidden text; no gradient flows into it.
            x_mask: [B, 1, T_x].
            dur_r: [B, 1, T_x] real durations, logarithms of frames.
            dur_hat: [B, 1, T_x] predicted durations, logarithms of frames.
            g: [B, gin, 1] speaker, or None; no gradient flows into it.

        Returns:
            [prob_r, prob_g], each [B, T_x, 1]: probability that the duration is real, padding
            included.
        """
        return list(self.judge(x, x_mask, torch.cat([dur_r, dur_hat]), g).chunk(2))

    def judge(
        self, x: Tensor, x_mask: Tensor, durations: Tensor, g: Tensor | None = None
    ) -> Tensor:
        """Judges durations, several for every text; the text is read once.

        Args:
            x: [B, in, T_x] hidden text; no gradient flows into it.
            x_mask: [B, 1, T_x].
            durations: [n * B, 1, T_x] logarithms of frames.
            g: [B, gin, 1] speaker, or None; no gradient flows into it.

        Returns:
            [n * B, T_x, 1]: probability that each duration is real, padding included.
        """
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        x = self.drop(self.norm_1(torch.relu(self.conv_1(x * x_mask))))
        x = self.drop(self.norm_2(torch.relu(self.conv_2(x * x_mask))))
        # as in published weights, the LSTM reads the padding too
        texts = torch.cat([x] * (durations.size(0) // x.size(0)))
        output, _ = self.LSTM(torch.cat([texts, self.dur_proj(durations)], dim=1).transpose(1, 2))
        return self.output_layer(output)
