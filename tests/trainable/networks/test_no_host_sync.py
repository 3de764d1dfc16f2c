"""Nothing in a training step's networks, losses or spectrograms reads a tensor's value on the host.

On a GPU such a read waits for the device. It shows on the CPU too: as one of a few operators.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import WavLMConfig, WavLMModel

from data.spectrogram import mel_spectrogram, spec_to_mel, spectrogram
from tests.trainable.networks import tiny
from trainable.gradients import clip_grad_value_
from trainable.losses import (
    WavLMFeatures,
    discriminator_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    wavlm_discriminator_loss,
    wavlm_feature_loss,
    wavlm_generator_loss,
)
from trainable.networks.duration_discriminator import DurationDiscriminator
from trainable.networks.period_discriminator import MultiPeriodDiscriminator
from trainable.networks.wavlm_discriminator import WavLMDiscriminator

READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")
MEL = {"n_fft": 64, "num_mels": 10, "sampling_rate": 8000, "hop_size": 16, "win_size": 64}


class NoHostSync(TorchDispatchMode):
    """Fails on operators that hand a value to Python, or whose output shape depends on values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if name in READS:
            raise AssertionError(f"aten::{name} reads the device")
        if name in ("index", "index_put_") and any(t is not None and t.dtype == torch.bool for t in args[1]):
            raise AssertionError("a boolean index reads the device")
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_reads():
    x = torch.tensor([1.0, 2.0])
    for read in (lambda: x.sum().item(), lambda: x[x > 1], lambda: bool(x.max() > 1), lambda: x.nonzero()):
        with pytest.raises(AssertionError, match="reads the device"), NoHostSync():
            read()


@pytest.mark.parametrize("variant", ["vits2", "residual_flow", "reference_encoder"])
def test_synthesizer(variant):
    net, text, speech = tiny.synthesizer(variant).train(), tiny.text(), tiny.speech()
    with NoHostSync():
        out = net(**text, **speech)
        kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)
        (out.o.sum() + out.l_length.sum() + kl).backward()
        clip_grad_value_(net.parameters(), 0.1)


def test_discriminators():
    d, dur = MultiPeriodDiscriminator(), DurationDiscriminator(8, 8, 3, 0.1)
    y, mask = torch.rand(2, 1, 501), torch.ones(2, 1, 5)
    with NoHostSync():
        y_d_r, y_d_g, fmap_r, fmap_g = d(y, y)
        loss = discriminator_loss(y_d_r, y_d_g)[0] + generator_loss(y_d_g)[0] + feature_loss(fmap_r, fmap_g)
        probabilities = dur(torch.rand(2, 8, 5), mask, torch.rand(2, 1, 5), torch.rand(2, 1, 5))
        (loss + discriminator_loss(*probabilities)[0]).backward()


def test_mels():
    y, lengths = torch.rand(2, 400), torch.tensor([400, 299])
    mel_spectrogram(y, **MEL)  # the filters are made once, on the CPU
    with NoHostSync():
        spec = spectrogram(y, MEL["n_fft"], MEL["hop_size"], MEL["win_size"], lengths=lengths)
        spec_to_mel(spec, **{key: MEL[key] for key in ("n_fft", "num_mels", "sampling_rate")})
        mel_spectrogram(y.requires_grad_(), **MEL).sum().backward()


def test_wavlm():
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 4),
        conv_stride=(5, 8),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    slm, wd = WavLMFeatures(WavLMModel(config), 44100), WavLMDiscriminator(16, 3, 4)
    slm.resample = torch.nn.Identity()  # torchaudio computes the new length with a tensor, on the CPU
    y_hat = torch.rand(2, 1, 4000, requires_grad=True)
    with NoHostSync():
        with torch.no_grad():
            real = slm(torch.rand(2, 4000))
        generated = slm(y_hat)
        wavlm_discriminator_loss(wd, real, generated).backward()
        (wavlm_feature_loss(real, generated) + wavlm_generator_loss(wd, generated)).backward()
    assert y_hat.grad is not None
    assert y_hat.grad.any()
    slm.train()
    assert not any(module.training for module in slm.modules())
    assert not any(p.requires_grad for p in slm.parameters())
