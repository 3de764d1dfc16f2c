"""Transformer encoder with relative positions, as in VITS and VITS2.

Relative positions after Shaw et al. (2018, arXiv:1803.02155), limited to a window; the speaker
enters before one layer (VITS2, Kong et al., 2023, arXiv:2307.16430, section 2.4).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.networks.kernels import support
from trainable.networks.kernels.attention import (
    MASKED_SCORE,
    RelativeAttention,
    band_to_square,
    square_to_band,
)
from trainable.networks.layers.modules import Dropout, LayerNorm
from trainable.networks.layers.weight_norm import Conv1d, activated

WINDOW_SIZE = 4  # relative positions beyond +-4 carry no embedding
COND_LAYER = 2  # the speaker is added before this layer (the third)


class MultiHeadAttention(nn.Module):
    """Self-attention with relative position embeddings shared by the heads."""

    def __init__(
        self, channels: int, n_heads: int, p_dropout: float = 0.0, window_size: int = WINDOW_SIZE
    ) -> None:
        super().__init__()
        if channels % n_heads != 0:
            raise ValueError(
                f"hidden_channels ({channels}) must be a multiple of n_heads ({n_heads})"
            )
        self.n_heads = n_heads
        self.k_channels = channels // n_heads
        self.window_size = window_size
        relative = (1, 2 * window_size + 1, self.k_channels)
        self.emb_rel_k = nn.Parameter(torch.randn(relative) * self.k_channels**-0.5)
        self.emb_rel_v = nn.Parameter(torch.randn(relative) * self.k_channels**-0.5)
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)
        self.drop = Dropout(p_dropout)
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)

    def _heads(self, x: Tensor) -> Tensor:
        """Split the heads: [B, C, T] -> [B, H, T, C / H]."""
        return x.unflatten(1, (self.n_heads, self.k_channels)).transpose(2, 3)

    def _joined(self, x: Tensor, padding: Tensor) -> Tensor:
        """Compute `forward` with few kernels, for GPUs."""
        convolutions = self.conv_q, self.conv_k, self.conv_v
        weight = torch.cat([convolution.weight for convolution in convolutions])
        bias = torch.cat([bias for conv in convolutions if (bias := conv.bias) is not None])
        heard = RelativeAttention.apply(
            F.conv1d(x, weight),
            bias,
            self.emb_rel_k.squeeze(0),
            self.emb_rel_v.squeeze(0),
            padding.squeeze(1),
            self.n_heads,
            self.drop.p if self.training else 0.0,
        )
        return self.conv_o(heard)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """Attend from every position to all that are not padding.

        Args:
            x: [B, C, T].
            padding: [B, 1, 1, T] bool, True at padding.

        Returns:
            [B, C, T]; what stands at padding is arbitrary.
        """
        if support.joined(x):
            return self._joined(x, padding)
        query = self._heads(self.conv_q(x)) / math.sqrt(self.k_channels)
        key = self._heads(self.conv_k(x))
        value = self._heads(self.conv_v(x))
        near = torch.matmul(query, self.emb_rel_k.transpose(1, 2))  # [B, H, T, 2 * window + 1]
        scores = torch.matmul(query, key.transpose(2, 3)) + band_to_square(near, self.window_size)
        scores = scores.masked_fill(padding, MASKED_SCORE)
        weights = self.drop(torch.softmax(scores, dim=-1))  # [B, H, T, T]
        nearby = square_to_band(weights, self.window_size)
        output = torch.matmul(weights, value) + torch.matmul(nearby, self.emb_rel_v)
        return self.conv_o(output.transpose(2, 3).flatten(1, 2))


class FFN(nn.Module):
    """Position-wise network of two convolutions with a ReLU."""

    def __init__(
        self, channels: int, filter_channels: int, kernel_size: int, p_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv_1 = Conv1d(channels, filter_channels, kernel_size, padding="same")
        self.conv_2 = Conv1d(filter_channels, channels, kernel_size, padding="same")
        self.drop = Dropout(p_dropout)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        """Map x [B, C, T], mask [B, 1, T] -> [B, C, T]."""
        # LayerNorm leaves the channels last in memory, where they stay
        x = self.drop(activated(self.conv_1, x * x_mask, slope=0.0))
        x_mask = x_mask.to(x.dtype)  # what autocast halved stays so
        return self.conv_2(x * x_mask) * x_mask


class Encoder(nn.Module):
    """Transformer encoder (post-norm), used for the text and inside the transformer flow."""

    def __init__(
        self,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int = 1,
        p_dropout: float = 0.0,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        if gin_channels > 0:
            if n_layers <= COND_LAYER:
                raise ValueError(
                    f"n_layers must be at least {COND_LAYER + 1} with gin_channels > 0, "
                    f"got {n_layers}"
                )
            self.spk_emb_linear = nn.Linear(gin_channels, hidden_channels)
        self.gin_channels = gin_channels
        self.drop = Dropout(p_dropout)
        layers = range(n_layers)
        self.attn_layers = nn.ModuleList(
            MultiHeadAttention(hidden_channels, n_heads, p_dropout) for _ in layers
        )
        self.norm_layers_1 = nn.ModuleList(LayerNorm(hidden_channels) for _ in layers)
        self.ffn_layers = nn.ModuleList(
            FFN(hidden_channels, filter_channels, kernel_size, p_dropout) for _ in layers
        )
        self.norm_layers_2 = nn.ModuleList(LayerNorm(hidden_channels) for _ in layers)

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Encode a padded batch.

        Args:
            x: [B, hidden, T].
            x_mask: [B, 1, T].
            g: [B, gin, 1] speaker, or None.

        Returns:
            [B, hidden, T], zero in the padding.
        """
        padding = (x_mask == 0).unsqueeze(1)
        x = x * x_mask
        layers = zip(
            self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True
        )
        for i, (attention, norm_1, ffn, norm_2) in enumerate(layers):
            if i == COND_LAYER and self.gin_channels > 0 and g is not None:
                x = (x + self.spk_emb_linear(g.transpose(1, 2)).transpose(1, 2)) * x_mask
            x = norm_1(x + self.drop(attention(x, padding)))
            x = norm_2(x + self.drop(ffn(x, x_mask)))
        return x * x_mask
