"""What a micro-batch gives the losses, and the generator's terms that need no discriminator.

A term is a function of (real, generated, nets): what the recording gave, what the generator made of
it, and the networks by name. It returns its value, unweighted, or a `Loss` that has parts beside
it. trainable/networks/registry.py declares its name, tags and weight.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from data.precision import widen
from trainable.learning.losses import kl_loss, wavlm_feature_loss
from trainable.networks.generator.synthesizer import SynthesizerOutput

Networks = Mapping[str, nn.Module]


class Loss(NamedTuple):
    """A loss on a micro-batch.

    Attributes:
        total: what is minimised, at least fp32, [].
        parts: what is logged beside it: tag -> [].
    """

    total: Tensor
    parts: Mapping[str, Tensor] = {}


@dataclass
class Real:
    """What the recording gives, computed once per micro-batch and without a graph.

    Attributes:
        y: [B, 1, segment] waveform.
        mel: [B, n_mel_channels, segment / hop] log mel spectrogram.
        slm: [B, L, hidden, T'] hidden states of WavLM.
    """

    y: Tensor
    mel: Tensor
    slm: Tensor


@dataclass
class Generated:
    """What the generator made of a micro-batch, with a graph to its weights.

    Attributes:
        out: everything that its forward pass returned.
        y_hat: [B, 1, segment] waveform.
        slm: [B, L, hidden, T'] hidden states of WavLM.
        to_mel: [B, segment] waveform -> [B, n_mel_channels, segment / hop] log mel spectrogram.
        tokens: phones of the longest text: T_x may be padded beyond it; None: T_x.
    """

    out: SynthesizerOutput
    y_hat: Tensor
    slm: Tensor
    to_mel: Callable[[Tensor], Tensor] = field(repr=False)
    tokens: int | None = None

    # not in advance: the discriminators' phase does without it
    @cached_property
    def mel(self) -> Tensor:
        """[B, n_mel_channels, segment / hop]: computed when it is first asked for."""
        return self.to_mel(self.y_hat.squeeze(1))

    def detach(self) -> "Generated":
        """Return the same without the graph."""
        out = SynthesizerOutput(*(tensor.detach() for tensor in self.out))
        y_hat, slm = self.y_hat.detach(), self.slm.detach()
        return Generated(out, y_hat, slm, self.to_mel, self.tokens)


def checked(loss: Loss | Tensor, name: str, parts: Collection[str]) -> Loss:
    """Return a loss, after a look at whether it is what its declaration says.

    Args:
        loss: what a term or an adversary returned.
        name: the term or network, for the message.
        parts: tags that it may have.
    """
    made = Loss(loss) if isinstance(loss, Tensor) else loss
    assert isinstance(made, Loss), f"{name} returned {type(loss).__name__}: give a tensor or a Loss"
    # shapes and names only: a look at a value would wait for the device
    values = (made.total, *made.parts.values())
    single = all(isinstance(value, Tensor) and value.dim() == 0 for value in values)
    assert single, f"{name} returned a loss that is no tensor of one number, shape []"
    strange = [tag for tag in made.parts if tag not in parts]
    assert not strange, f"{name} returned {', '.join(strange)}, which its declaration does not list"
    return made


def mel(real: Real, generated: Generated, nets: Networks) -> Tensor:
    """Return the mean L1 distance of the log mel spectrograms, [] (HiFi-GAN equation 7)."""
    return F.l1_loss(real.mel, generated.mel)


def duration(real: Real, generated: Generated, nets: Networks) -> Tensor:
    """Return the loss of both duration predictors, [], a mean per token (VITS section 2.2.2)."""
    return widen(generated.out.l_length).sum()


def kl(real: Real, generated: Generated, nets: Networks) -> Tensor:
    """Return the KL divergence of the posterior from the prior, [] in nats per frame (VITS)."""
    out = generated.out
    return kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)


def wavlm_feature(real: Real, generated: Generated, nets: Networks) -> Tensor:
    """Return the L1 distance of WavLM's hidden states, [], a sum over the layers (StyleTTS 2)."""
    return wavlm_feature_loss(real.slm, generated.slm)
