"""Losses of the generator and of its discriminators, all computed in at least fp32.

Sources: VITS (Kim et al., 2021, arXiv:2106.06103), HiFi-GAN (Kong et al., 2020, arXiv:2010.05646),
least-squares GAN (Mao et al., 2017, arXiv:1611.04076), WavLM losses of StyleTTS 2 (Li et al., 2023,
arXiv:2306.07691).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn
from transformers import WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from data.precision import widen


def feature_loss(fmap_r: Iterable[Iterable[Tensor]], fmap_g: Iterable[Iterable[Tensor]]) -> Tensor:
    """Feature matching: 2 * sum over all feature maps of mean |real - generated| (HiFi-GAN equation 8, twice).

    Args:
        fmap_r: feature maps of the real batch, a list a discriminator; they get no gradient.
        fmap_g: the same of the generated batch.

    Returns:
        [] fp32.
    """
    distances = [
        torch.mean(torch.abs(widen(real.detach()) - widen(generated)))
        for maps_r, maps_g in zip(fmap_r, fmap_g, strict=True)
        for real, generated in zip(maps_r, maps_g, strict=True)
    ]
    return 2 * torch.stack(distances).sum()


def discriminator_loss(
    real_outputs: Iterable[Tensor], generated_outputs: Iterable[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Least-squares loss of discriminators: sum of mean (1 - D(real))^2 + mean D(generated)^2.

    Args:
        real_outputs: one tensor a discriminator. A single tensor [B, T, 1] is taken item by item,
            so that the loss sums over the batch: what the reference trainer does for the duration
            discriminator.
        generated_outputs: the same of the generated batch.

    Returns:
        The loss [] fp32, its real parts and its generated parts, each [].
    """
    pairs = list(zip(real_outputs, generated_outputs, strict=True))
    r_losses = [torch.mean((1 - widen(real)).square()) for real, _ in pairs]
    g_losses = [torch.mean(widen(generated).square()) for _, generated in pairs]
    return torch.stack(r_losses).sum() + torch.stack(g_losses).sum(), r_losses, g_losses


def generator_loss(outputs: Iterable[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Least-squares loss of the generator: sum of mean (1 - D(generated))^2.

    Args:
        outputs: one tensor a discriminator, or a single tensor [B, T, 1], as in
            `discriminator_loss`.

    Returns:
        The loss [] fp32 and its parts, each [].
    """
    losses = [torch.mean((1 - widen(output)).square()) for output in outputs]
    return torch.stack(losses).sum(), losses


def masked_discriminator_loss(
    real_outputs: Sequence[Tensor], generated_outputs: Sequence[Tensor], mask: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Least-squares loss of the duration discriminator over real tokens, the mean over both predictors.

    The corrected form: each predictor is judged by itself (the reference adds up their scores, so
    that one can hide the other's mistakes), padding has no part in it, and it does not grow with
    the batch.

    Args:
        real_outputs: scores [B, T, 1], one a predictor.
        generated_outputs: the same of predicted durations.
        mask: [B, 1, T], 1 on tokens.

    Returns:
        The loss [] fp32, its real parts and its generated parts, each [], one a predictor.
    """
    r_losses = [_masked_mean((1 - widen(real)).square(), mask) for real in real_outputs]
    g_losses = [_masked_mean(widen(generated).square(), mask) for generated in generated_outputs]
    return torch.stack(r_losses).mean() + torch.stack(g_losses).mean(), r_losses, g_losses


def masked_generator_loss(outputs: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Least-squares loss of the duration predictors over real tokens (see `masked_discriminator_loss`).

    Args:
        outputs: scores [B, T, 1], one a predictor.
        mask: [B, 1, T].

    Returns:
        The loss [] fp32 and its parts, each [].
    """
    losses = [_masked_mean((1 - widen(output)).square(), mask) for output in outputs]
    return torch.stack(losses).mean(), losses


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T, 1], [B, 1, T] -> []: the mean where the mask is 1."""
    weights = widen(mask.transpose(1, 2))
    return (values * weights).sum() / weights.sum()


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, z_mask: Tensor) -> Tensor:
    """KL divergence of the posterior from the prior (VITS equations 3-4), estimated at the drawn z.

    mean over frames of sum over channels: logs_p - logs_q - 1/2 + (z_p - m_p)^2 / (2 exp(2
    logs_p)).

    Args:
        z_p: [B, C, T_y] the posterior's draw through the flow.
        logs_q: [B, C, T_y].
        m_p: [B, C, T_y].
        logs_p: [B, C, T_y].
        z_mask: [B, 1, T_y].

    Returns:
        [] fp32, in nats a frame.
    """
    z_p, logs_q, m_p, logs_p, z_mask = map(widen, (z_p, logs_q, m_p, logs_p, z_mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2 * logs_p)
    return torch.sum(kl * z_mask) / torch.sum(z_mask)


class WavLMFeatures(nn.Module):
    """Hidden states of a frozen WavLM (Chen et al., 2022, arXiv:2110.13900).

    The model stays in eval mode whatever train() is called, takes no gradient, and belongs in no
    checkpoint. Gradients flow through it to the waveform.

    Args:
        wavlm: the model.
        model_sr: sampling rate of the waveforms, in Hz.
        slm_sr: sampling rate of the WavLM, in Hz.
    """

    def __init__(self, wavlm: WavLMModel, model_sr: int, slm_sr: int = 16000) -> None:
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
        """Loads a published WavLM.

        Args:
            path_or_hub_name: a folder, or a name on the hub such as microsoft/wavlm-base-plus.
            model_sr: sampling rate of the waveforms, in Hz.
            slm_sr: sampling rate of the WavLM, in Hz.
            revision: of the repository on the hub.
            **kwargs: passed on to transformers.
        """
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

    def store_as(self, dtype: torch.dtype) -> None:
        """Keep the weights of linear layers and convolutions in the type that autocast casts them to.

        Autocast keeps casts of trained weights for a pass, but makes those of frozen ones anew at
        every call: on a CPU that took longer than all else that WavLM does. From then on it is
        called under autocast only.
        """
        for module in self.wavlm.modules():
            if isinstance(module, nn.Linear) or (
                type(module) is nn.Conv1d and "weight" in module._parameters
            ):
                module.to(dtype)

    def train(self, mode: bool = True) -> "WavLMFeatures":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, wav: Tensor) -> Tensor:
        """Reads waveforms; call it under torch.no_grad() for real audio.

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
    """Lays the input of WavLM's attention, [B, T, hidden], out with the time first.

    Attention reads it transposed. Of an input that is not contiguous torch makes a batch of
    products with a frozen weight, and as many copies of the weight: T copies a projection, where
    one product does.
    """
    hidden, *rest = args
    return hidden.transpose(0, 1).contiguous().transpose(0, 1), *rest


def wavlm_feature_loss(hidden_real: Tensor, hidden_gen: Tensor) -> Tensor:
    """Feature matching on WavLM's hidden states: sum over the layers of mean |real - generated|.

    Args:
        hidden_real: [B, L, hidden, T'] of `WavLMFeatures`; gets no gradient.
        hidden_gen: the same of generated audio.

    Returns:
        [] fp32.
    """
    distance = torch.abs(widen(hidden_real.detach()) - widen(hidden_gen))
    return distance.mean(dim=(0, 2, 3)).sum()


def wavlm_generator_loss(wd: nn.Module, hidden_gen: Tensor) -> Tensor:
    """Adversarial loss of the generator from the WavLM discriminator: mean (1 - WD(generated))^2.

    Args:
        wd: WavLMDiscriminator.
        hidden_gen: [B, L, hidden, T'] of `WavLMFeatures`.

    Returns:
        [] fp32.
    """
    return torch.mean((1 - widen(wd(hidden_gen.flatten(1, 2)))).square())


def wavlm_discriminator_loss(wd: nn.Module, hidden_real: Tensor, hidden_gen: Tensor) -> Tensor:
    """Loss of the WavLM discriminator: mean (1 - WD(real))^2 + mean WD(generated)^2.

    Args:
        wd: WavLMDiscriminator.
        hidden_real: [B, L, hidden, T'] of `WavLMFeatures`.
        hidden_gen: the same of generated audio; gets no gradient.

    Returns:
        [] fp32.
    """
    real = widen(wd(hidden_real.detach().flatten(1, 2)))
    generated = widen(wd(hidden_gen.detach().flatten(1, 2)))
    return torch.mean((1 - real).square()) + torch.mean(generated.square())
