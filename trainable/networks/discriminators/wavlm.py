"""Discriminator on WavLM features."""

from itertools import pairwise

from torch import Tensor, nn

from trainable.networks.layers.modules import LRELU_SLOPE
from trainable.networks.layers.weight_norm import activated, normed_conv1d
from trainable.networks.registry import Blueprint


class WavLMDiscriminator(nn.Module):
    """Convolutions over the hidden states of a speech language model.

    StyleTTS 2 (Li et al., 2023, arXiv:2306.07691).

    Args:
        slm_hidden: width of the language model.
        slm_layers: number of its hidden states: its layers and the input to the first.
        initial_channel: channels after the first convolution.
        use_spectral_norm: spectral instead of weight normalisation; `build` never asks for it.
    """

    def __init__(
        self,
        slm_hidden: int = 768,
        slm_layers: int = 13,
        initial_channel: int = 64,
        use_spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = (initial_channel, 2 * initial_channel, 4 * initial_channel, 4 * initial_channel)
        self.pre = normed_conv1d(
            slm_hidden * slm_layers,
            initial_channel,
            1,
            padding=0,
            use_spectral_norm=use_spectral_norm,
        )
        self.convs = nn.ModuleList(
            normed_conv1d(n_in, n_out, 5, padding=2, use_spectral_norm=use_spectral_norm)
            for n_in, n_out in pairwise(widths)
        )
        self.conv_post = normed_conv1d(
            widths[-1], 1, 3, padding=1, use_spectral_norm=use_spectral_norm
        )

    def forward(self, x: Tensor) -> Tensor:
        """Judge hidden states: [B, slm_hidden * slm_layers, T] stacked -> logits [B, T]."""
        x = self.pre(x)
        for conv in self.convs:
            x = activated(conv, x, LRELU_SLOPE)
        return self.conv_post(x).flatten(1)


def build(blueprint: Blueprint) -> WavLMDiscriminator:
    """Build the discriminator that the configuration asks for.

    With weight normalisation, as in the reference, whatever `model.use_spectral_norm` says.
    """
    slm = blueprint.slm
    return WavLMDiscriminator(slm.hidden_size, slm.num_states, blueprint.model.slm.initial_channel)
