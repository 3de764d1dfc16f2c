"""Normalizing flows between the posterior's z and the prior's z_p (VITS 2.2, VITS2 2.3).

All couplings are mean-only, so the flows preserve volume and no log determinant is returned.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainable.networks.layers.attentions import Encoder
from trainable.networks.layers.modules import WN
from trainable.networks.layers.recompute import recomputed


class Flip(nn.Module):
    """Reversal of the channels' order; its own inverse."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] -> [B, C, T]."""
        return torch.flip(x, [1])


class CouplingLayer(nn.Module):
    """Mean-only affine coupling (Dinh et al., 2017, arXiv:1605.08803): x1 + m(x0); x0 passes.

    Args:
        channels: channels of the variable, even.
        hidden_channels: width of the encoder.
        enc: network (x [B, hidden, T], mask [B, 1, T], g) -> [B, hidden, T].
    """

    def __init__(self, channels: int, hidden_channels: int, enc: nn.Module) -> None:
        super().__init__()
        if channels % 2 != 0:
            raise ValueError(f"inter_channels must be even for a coupling flow, got {channels}")
        self.pre = nn.Conv1d(channels // 2, hidden_channels, 1)
        self.enc = enc
        self.post = nn.Conv1d(hidden_channels, channels // 2, 1)
        # a new flow is the identity
        nn.init.zeros_(self.post.weight)
        assert self.post.bias is not None
        nn.init.zeros_(self.post.bias)

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """Map x [B, C, T], mask [B, 1, T], speaker [B, gin, 1] -> [B, C, T]."""
        x0, x1 = x.chunk(2, dim=1)
        m = self.post(self.enc(self.pre(x0) * x_mask, x_mask, g)) * x_mask
        x1 = (x1 - m) * x_mask if reverse else m + x1 * x_mask
        return torch.cat([x0, x1], dim=1)


class _CouplingBlock(nn.Module):
    """Couplings with flips between them (flows.0, flows.2, ... are the couplings).

    Attributes:
        recompute: whether the couplings' activations are computed again in the backward pass, to
            save memory.
    """

    recompute = False

    def __init__(self, couplings: Iterable[CouplingLayer]) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            module for coupling in couplings for module in (coupling, Flip())
        )

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """Map z to z_p, or back.

        Args:
            x: [B, C, T].
            x_mask: [B, 1, T].
            g: [B, gin, 1] speaker, or None.
            reverse: False for z -> z_p (training), True for z_p -> z (synthesis).

        Returns:
            [B, C, T].
        """
        for flow in reversed(self.flows) if reverse else self.flows:
            if isinstance(flow, Flip):
                x = flow(x)
            else:
                x = recomputed(flow, x, x_mask, g, reverse, enabled=self.recompute)
        return x


class ResidualCouplingBlock(_CouplingBlock):
    """The flow of VITS: WaveNet couplings.

    Args:
        channels: channels of z.
        hidden_channels: width of the WaveNet stacks.
        kernel_size: kernel of their convolutions.
        dilation_rate: growth of the dilation.
        n_layers: layers of a stack.
        n_flows: couplings.
        gin_channels: channels of the speaker; 0 leaves it out.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        kernel_size: int,
        dilation_rate: int,
        n_layers: int,
        n_flows: int = 4,
        gin_channels: int = 0,
    ) -> None:
        def encoder() -> WN:
            return WN(hidden_channels, kernel_size, dilation_rate, n_layers, gin_channels)

        super().__init__(
            CouplingLayer(channels, hidden_channels, encoder()) for _ in range(n_flows)
        )


class TransformerCouplingBlock(_CouplingBlock):
    """The flow of VITS2: transformer couplings.

    Args:
        channels: channels of z.
        hidden_channels: width of the transformers.
        filter_channels: width inside their position-wise networks.
        n_heads: attention heads.
        n_layers: layers of a transformer, at least 3 with a speaker.
        kernel_size: kernel of the position-wise networks.
        p_dropout: probability of dropout.
        n_flows: couplings.
        gin_channels: channels of the speaker; 0 leaves it out.
        share_parameter: whether all couplings use one transformer.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        n_flows: int = 4,
        gin_channels: int = 0,
        share_parameter: bool = False,
    ) -> None:
        if n_layers < 3 and gin_channels > 0:
            raise ValueError(f"n_layers_trans_flow must be at least 3, got {n_layers}")

        def encoder() -> Encoder:
            return Encoder(
                hidden_channels,
                filter_channels,
                n_heads,
                n_layers,
                kernel_size,
                p_dropout,
                gin_channels,
            )

        shared = encoder() if share_parameter else None
        super().__init__(
            CouplingLayer(channels, hidden_channels, shared if shared is not None else encoder())
            for _ in range(n_flows)
        )
