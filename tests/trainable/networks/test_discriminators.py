"""Discriminators over their variants: forward, backward, one waveform at a time."""

import pytest
import torch

from tests.trainable.networks import tiny
from trainable.learning.losses import discriminator_loss, feature_loss, generator_loss
from trainable.networks.discriminators.duration import DurationDiscriminator
from trainable.networks.discriminators.period import DiscriminatorP, MultiPeriodDiscriminator
from trainable.networks.discriminators.wavlm import WavLMDiscriminator


@pytest.fixture(scope="module", params=[False, True], ids=["weight_norm", "spectral_norm"])
def period_discriminator(request):
    torch.manual_seed(0)
    return MultiPeriodDiscriminator(use_spectral_norm=request.param)


@pytest.fixture(scope="module")
def waves():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 1, 1001, generator=generator) - 0.5 for _ in range(2)]


@pytest.mark.medium
def test_period_discriminator_trains(period_discriminator, waves):
    net, (y, y_hat) = period_discriminator.train(), waves
    net.zero_grad()
    y_d_rs, y_d_gs, fmap_rs, fmap_gs = net(y, y_hat)
    assert len(y_d_rs) == len(y_d_gs) == len(fmap_rs) == len(fmap_gs) == 6
    assert [len(fmap) for fmap in fmap_rs] == [7, 6, 6, 6, 6, 6]
    discriminator_loss(y_d_rs, y_d_gs)[0].backward()
    assert tiny.without_gradient(net) == set()


@pytest.mark.medium
def test_one_waveform_gives_what_a_pair_gives(period_discriminator, waves):
    net, (y, y_hat) = period_discriminator.eval(), waves
    with torch.no_grad():
        y_d_rs, y_d_gs, fmap_rs, fmap_gs = net(y, y_hat)
        for wave, logits, fmaps in ((y, y_d_rs, fmap_rs), (y_hat, y_d_gs, fmap_gs)):
            alone, alone_fmaps = net.discriminate(wave)
            for one, other in zip(alone, logits, strict=True):
                assert torch.allclose(one, other, atol=1e-5)
            assert feature_loss(alone_fmaps, fmaps) < 1e-4


def test_generator_learns_from_a_frozen_discriminator(period_discriminator, waves):
    net, (y, y_hat) = period_discriminator.train(), waves
    net.zero_grad()
    net.requires_grad_(False)
    y_hat = y_hat.clone().requires_grad_()
    with torch.no_grad():
        _, fmap_r = net.discriminate(y)
    logits, fmap_g = net.discriminate(y_hat)
    (generator_loss(logits)[0] + feature_loss(fmap_r, fmap_g)).backward()
    net.requires_grad_(True)
    assert y_hat.grad is not None
    assert y_hat.grad.any()
    assert all(p.grad is None for p in net.parameters())


def test_narrow_period_discriminator(waves):
    net = MultiPeriodDiscriminator(width_divisor=16)
    y_d_rs, y_d_gs, _, _ = net(*waves)
    discriminator_loss(y_d_rs, y_d_gs)[0].backward()
    assert tiny.without_gradient(net) == set()
    assert sum(p.numel() for p in net.parameters()) < 250_000
    with pytest.raises(ValueError, match="width_divisor"):
        MultiPeriodDiscriminator(width_divisor=3)


@pytest.mark.parametrize("gin_channels", [0, 6])
def test_duration_discriminator(gin_channels):
    torch.manual_seed(0)
    net = DurationDiscriminator(8, 8, 3, 0.1, gin_channels=gin_channels)
    mask = (torch.arange(5) < torch.tensor([[5], [3]])).float().unsqueeze(1)
    x, g = torch.randn(2, 8, 5, requires_grad=True), torch.randn(2, 6, 1, requires_grad=True)
    dur_hat = torch.randn(2, 1, 5, requires_grad=True)
    prob_r, prob_g = net(x, mask, torch.randn(2, 1, 5), dur_hat, g if gin_channels else None)
    assert prob_r.shape == prob_g.shape == (2, 5, 1)
    assert ((prob_r > 0) & (prob_r < 1)).all()
    discriminator_loss(prob_r, prob_g)[0].backward()
    assert tiny.without_gradient(net) == set()
    assert dur_hat.grad is not None
    assert x.grad is None
    assert g.grad is None


@pytest.mark.parametrize("use_spectral_norm", [False, True])
def test_wavlm_discriminator(use_spectral_norm):
    torch.manual_seed(0)
    net = WavLMDiscriminator(
        slm_hidden=6, slm_layers=3, initial_channel=4, use_spectral_norm=use_spectral_norm
    )
    out = net(torch.randn(2, 18, 7))
    assert out.shape == (2, 7)
    out.square().sum().backward()
    assert tiny.without_gradient(net) == set()


@pytest.mark.medium
@pytest.mark.parametrize(
    "backend",
    # the compiler of C++ is a process, and takes 20 s
    ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.processes])],
)
def test_a_period_is_compiled_for_lengths_that_vary(backend):
    torch.compiler.reset()
    net = DiscriminatorP(5, width_divisor=16)
    net.convs = net.convs[:1]  # each takes seconds to compile
    net.conv_post = torch.nn.Conv2d(2, 1, (3, 1), padding=(1, 0))
    compiled = torch.compile(net, dynamic=True, backend=backend)
    for wave in (torch.randn(2, 1, 1001), torch.randn(2, 1, 1026)):
        assert torch.allclose(compiled(wave)[0], net(wave)[0], atol=1e-5)
