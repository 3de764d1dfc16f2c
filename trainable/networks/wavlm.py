"""WavLM as a listener: its hidden states, through which gradients flow back to the waveform."""

from typing import TYPE_CHECKING, Any

import torch
import torchaudio
from torch import Tensor, nn

from data.precision import widen
from trainable.networks.layers.weight_norm import contiguous_conv1d

# seconds of imports, which a process that only checks settings does without
if TYPE_CHECKING:
    from transformers import WavLMModel


class WavLMFeatures(nn.Module):
    """Hidden states of a frozen WavLM (Chen et al., 2022, arXiv:2110.13900).

    The model stays in eval mode whatever train() is called, takes no gradient, and belongs in no
    checkpoint. Gradients flow through it to the waveform.

    Args:
        wavlm: the model.
        model_sr: sampling rate of the waveforms, in Hz.
        slm_sr: sampling rate of the WavLM, in Hz.
    """

    def __init__(self, wavlm: "WavLMModel", model_sr: int, slm_sr: int = 16000) -> None:
        super().__init__()
        self.wavlm = wavlm.requires_grad_(False)
        positions = wavlm.encoder.pos_conv_embed
        positions.conv = FrozenConv1d(positions.conv)
        for layer in wavlm.encoder.layers:
            layer.attention = GatedAttention(layer.attention)
        self.resample = torchaudio.transforms.Resample(model_sr, slm_sr)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_name: str,
        model_sr: int,
        slm_sr: int = 16000,
        revision: str | None = None,
        **kwargs: Any,
    ) -> "WavLMFeatures":
        """Load a published WavLM.

        Args:
            path_or_hub_name: a folder, or a name on the hub such as microsoft/wavlm-base-plus.
            model_sr: sampling rate of the waveforms, in Hz.
            slm_sr: sampling rate of the WavLM, in Hz.
            revision: commit, branch or tag of the hub's repository; None: main.
            **kwargs: passed on to transformers.
        """
        from transformers import WavLMModel

        wavlm = WavLMModel.from_pretrained(path_or_hub_name, revision=revision or "main", **kwargs)
        return cls(wavlm, model_sr, slm_sr)

    @property
    def hidden_size(self) -> int:
        """Width of a hidden state."""
        return self.wavlm.config.hidden_size

    @property
    def num_states(self) -> int:
        """Number of hidden states: the input to the first layer and the output of each."""
        return self.wavlm.config.num_hidden_layers + 1

    def store_as(self, dtype: torch.dtype | None) -> None:
        """Keep the weights of linear layers and convolutions in the type that autocast casts to.

        Autocast keeps the casts of trained weights for the length of a pass, but casts frozen ones
        again at every call: on a CPU that took longer than all else that WavLM does. From then on
        it can be called under autocast only.

        Args:
            dtype: type that autocast computes in; None leaves the weights as they are.
        """
        if dtype is None:
            return
        for module in self.wavlm.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                module.to(dtype)

    def train(self, mode: bool = True) -> "WavLMFeatures":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, wav: Tensor) -> Tensor:
        """Read waveforms; call it under torch.no_grad() for real audio.

        Args:
            wav: [B, T] or [B, 1, T] at model_sr.

        Returns:
            [B, L, hidden, T'], L hidden states (`num_states`) of width hidden (`hidden_size`).
        """
        with torch.autocast(wav.device.type, enabled=False):
            resampled = self.resample(widen(wav.flatten(1)))
        states = self.wavlm(input_values=resampled, output_hidden_states=True).hidden_states
        return torch.stack(states, dim=1).transpose(2, 3)


class FrozenConv1d(nn.Conv1d):
    """A convolution that is frozen: its weight, of weight norm or not, is computed once."""

    def __init__(self, conv: Any) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            device="meta",
        )
        assert conv.bias is not None
        self.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C_in, T] -> [B, C_out, T']."""
        return contiguous_conv1d(x, self.weight, self.bias, self)


class GatedAttention(nn.Module):
    """WavLM's attention (section 3.1), with few and large operators, for a model that is frozen.

    Query, key and value are one product, and the sums inside the gate are part of its weights. The
    weights that attention gave are not returned: nobody reads them.

    Args:
        attention: transformers' module, whose weights it takes.
    """

    two: Tensor
    minus_one: Tensor

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.compute_bias = attention.compute_bias
        if hasattr(attention, "rel_attn_embed"):
            self.rel_attn_embed = attention.rel_attn_embed
        self.out_proj = attention.out_proj
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        scale = attention.scaling
        self.projections = _linear(
            torch.cat([query.weight * scale, key.weight, value.weight]),
            torch.cat([query.bias * scale, key.bias, value.bias]),
        )
        gate = attention.gru_rel_pos_linear  # 2 numbers, each a sum of 4
        self.gate = _linear(
            gate.weight.unflatten(0, (2, 4)).sum(1), gate.bias.unflatten(0, (2, 4)).sum(1)
        )
        self.gate_factor = nn.Parameter(attention.gru_rel_pos_const.flatten(), requires_grad=False)
        self.register_buffer("two", torch.tensor(2.0), persistent=False)
        self.register_buffer("minus_one", torch.tensor(-1.0), persistent=False)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None, Tensor]:
        """Attend: as transformers' module, for batches without padding.

        Args:
            hidden_states: [B, T, hidden].
            attention_mask: None.
            position_bias: [H, T, T] of the first layer; None in this one.

        Returns:
            [B, T, hidden], None, and the position bias.
        """
        assert attention_mask is None
        if position_bias is None:
            position_bias = self.compute_bias(hidden_states.size(1), hidden_states.size(1))
        by_head = hidden_states.unflatten(-1, (self.heads, -1))
        update, reset = torch.sigmoid(widen(self.gate(by_head))).unbind(-1)  # [B, T, H] each
        # 2 - update + update * reset * factor
        change = torch.addcmul(self.minus_one, reset, self.gate_factor)
        gate = torch.addcmul(self.two, update, change)

        projected = self.projections(hidden_states).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        scores = torch.matmul(query, key.transpose(2, 3))
        scores = torch.addcmul(scores, gate.transpose(1, 2).unsqueeze(-1), position_bias)
        heard = torch.matmul(torch.softmax(scores, dim=-1), value)  # [B, H, T, hidden / H]
        return self.out_proj(heard.transpose(1, 2).flatten(2)), None, position_bias


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a frozen layer with these weights."""
    made = nn.Linear(weight.size(1), weight.size(0), device="meta")
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made
