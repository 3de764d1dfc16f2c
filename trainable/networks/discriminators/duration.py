"""Duration discriminator (VITS2, Kong et al., 2023, arXiv:2307.16430, section 2.1)."""

import torch
from torch import Tensor, nn

from trainable.networks.kernels.lstm import read_both_ways
from trainable.networks.layers.modules import Dropout, LayerNorm
from trainable.networks.registry import Blueprint


class DurationDiscriminator(nn.Module):
    """Judges, token by token, whether durations fit the text.

    Args:
        in_channels: channels of the hidden text.
        filter_channels: channels inside the network.
        kernel_size: kernel of the convolutions, odd.
        p_dropout: share of activations that dropout sets to 0.
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
        width = filter_channels
        padding = kernel_size // 2
        self.drop = Dropout(p_dropout)
        self.conv_1 = nn.Conv1d(in_channels, width, kernel_size, padding=padding)
        self.norm_1 = LayerNorm(width)
        self.conv_2 = nn.Conv1d(width, width, kernel_size, padding=padding)
        self.norm_2 = LayerNorm(width)
        self.dur_proj = nn.Conv1d(1, width, 1)
        self.LSTM = nn.LSTM(2 * width, width, batch_first=True, bidirectional=True)
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, in_channels, 1)
        self.output_layer = nn.Sequential(nn.Linear(2 * width, 1), nn.Sigmoid())

    def forward(
        self,
        x: Tensor,
        x_mask: Tensor,
        dur_r: Tensor,
        dur_hat: Tensor,
        g: Tensor | None = None,
        tokens: int | None = None,
    ) -> list[Tensor]:
        """Judge real and predicted durations of the same text.

        Args:
            x: [B, in, T_x] hidden text; no gradient flows into it.
            x_mask: [B, 1, T_x], 1 on tokens.
            dur_r: [B, 1, T_x] real durations, logarithms of frames.
            dur_hat: [B, 1, T_x] predicted durations, logarithms of frames.
            g: [B, gin, 1] speaker, or None; no gradient flows into it.
            tokens: most tokens of a text, see `judge`.

        Returns:
            [prob_r, prob_g], each [B, tokens, 1]: probability that the duration is real, padding
            included.
        """
        both = self.judge(x, x_mask, torch.cat([dur_r, dur_hat]), g, tokens)
        return list(both.chunk(2))

    def judge(
        self,
        x: Tensor,
        x_mask: Tensor,
        durations: Tensor,
        g: Tensor | None = None,
        tokens: int | None = None,
    ) -> Tensor:
        """Judge n durations of every text; the text is read once.

        Args:
            x: [B, in, T_x] hidden text; no gradient flows into it.
            x_mask: [B, 1, T_x], 1 on tokens.
            durations: [n * B, 1, T_x] logarithms of frames.
            g: [B, gin, 1] speaker, or None; no gradient flows into it.
            tokens: most tokens of a text: what is padded beyond them is not judged; None: T_x.

        Returns:
            [n * B, tokens, 1]: probability that each duration is real, padding included.
        """
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        x = self.drop(self.norm_1(torch.relu(self.conv_1(x * x_mask))))
        x = self.drop(self.norm_2(torch.relu(self.conv_2(x * x_mask))))

        # published weights were trained so that the LSTM reads the padding too, up to the longest
        texts = torch.cat([x] * (durations.size(0) // x.size(0)))
        both = torch.cat([texts, self.dur_proj(durations)], dim=1)  # [n * B, 2 * width, T_x]
        both = both[:, :, :tokens]
        return self.output_layer(read_both_ways(self.LSTM, both.transpose(1, 2)))


def build(blueprint: Blueprint) -> DurationDiscriminator:
    """Build the discriminator that the configuration asks for."""
    model = blueprint.model
    return DurationDiscriminator(
        model.hidden_channels,
        model.hidden_channels,
        kernel_size=3,
        p_dropout=0.1,
        gin_channels=model.gin_channels,
    )
