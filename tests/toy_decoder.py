"""A decoder that is declared here and nowhere else."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from trainable.model_config import ModelConfig
from trainable.networks.layers.modules import masked
from trainable.networks.layers.recompute import recomputed


class ToyDecoder(nn.Module):
    """Each frame becomes its samples at once."""

    recompute = False
    sized_by: ClassVar[str] = "its class"
    HOP = 512

    def __init__(self, channels: int, gin_channels: int) -> None:
        super().__init__()
        self.cond = nn.Conv1d(gin_channels, channels, 1)
        self.around = nn.Conv1d(channels, 16, 3, padding=1)
        self.samples = nn.Conv1d(16, self.HOP, 1)

    @classmethod
    def from_config(cls, model: ModelConfig) -> Self:
        return cls(model.inter_channels, model.gin_channels)

    @classmethod
    def samples_per_frame(cls, model: ModelConfig) -> int:
        return cls.HOP

    def forward(self, x: Tensor, g: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if g is not None:
            x = x + self.cond(g)
        hidden = torch.relu(recomputed(self.around, masked(x, mask), enabled=self.recompute))
        return torch.tanh(self.samples(hidden)).transpose(1, 2).flatten(1).unsqueeze(1)
