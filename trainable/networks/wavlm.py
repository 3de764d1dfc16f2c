"""WavLM as a listener: its hidden states, through which gradients flow back to the waveform."""

from typing import TYPE_CHECKING, Any

import torch
import torchaudio
from torch import Tensor, nn

from data.precision import widen

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
        from transformers.models.wavlm.modeling_wavlm import WavLMAttention

        super().__init__()
        self.wavlm = wavlm.requires_grad_(False)
        for module in wavlm.modules():
            if isinstance(module, WavLMAttention):
                module.register_forward_pre_hook(_time_first)
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
            # a convolution whose weight is computed from others (weight norm) keeps their type
            plain = type(module) is nn.Conv1d and "weight" in module._parameters
            if isinstance(module, nn.Linear) or plain:
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


def _time_first(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Lay the input of WavLM's attention, [B, T, hidden], out with the time first.

    Attention reads it transposed. Of an input that is not contiguous torch makes a batch of
    products with a frozen weight, and as many copies of the weight: T copies per projection, where
    one product does.
    """
    hidden, *rest = args
    return hidden.transpose(0, 1).contiguous().transpose(0, 1), *rest
