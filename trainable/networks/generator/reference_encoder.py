"""Reference encoder: a speaker vector from a spectrogram, for models without a speaker table."""

import torch
from torch import Tensor, nn

from trainable.networks.layers.weight_norm import WeightNormConv2d

FILTERS = (32, 32, 64, 64, 128, 128)


class ReferenceEncoder(nn.Module):
    """Strided 2-D convolutions and a GRU (Skerry-Ryan et al., 2018, arXiv:1803.09047).

    Args:
        spec_channels: bins of the linear spectrogram.
        gin_channels: channels of the speaker vector.
    """

    def __init__(self, spec_channels: int, gin_channels: int = 0) -> None:
        super().__init__()
        channels = zip((1, *FILTERS[:-1]), FILTERS, strict=True)
        self.convs = nn.ModuleList(
            WeightNormConv2d(n_in, n_out, kernel_size=3, stride=2, padding=1)
            for n_in, n_out in channels
        )
        bins = spec_channels
        for _ in FILTERS:
            bins = (bins + 1) // 2  # kernel 3, stride 2, padding 1
        self.gru = nn.GRU(FILTERS[-1] * bins, FILTERS[-1], batch_first=True)
        self.proj = nn.Linear(FILTERS[-1], gin_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map linear spectrograms [B, T_y, spec], padding included -> [B, gin]."""
        x = inputs.unsqueeze(1)  # [B, 1, T_y, spec]
        for conv in self.convs:
            x = torch.relu(conv(x))
        # [B, T_y / 64, filters * bins] -> [1, B, filters]
        _, last = self.gru(x.transpose(1, 2).flatten(2))
        return self.proj(last.squeeze(0))
