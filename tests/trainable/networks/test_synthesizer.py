"""The generator network over its variants: forward, backward, inference, refusals."""

import copy
import math

import pytest
import torch

from tests.trainable.networks import tiny
from trainable.learning.losses import kl_loss
from trainable.networks.generator.alignment import AlignmentSearch, beta_binomial_prior
from trainable.networks.generator.synthesizer import Prior


@pytest.mark.medium
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_shapes(variant):
    net = tiny.synthesizer(variant)
    out = net(tiny.text(), **tiny.speech())
    shapes = {key: tuple(value.shape) for key, value in out._asdict().items()}
    frames, tokens = (2, 4, 20), (2, 1, 7)
    assert shapes == {
        "o": (2, 1, tiny.SEGMENT * tiny.HOP),
        "l_length": (2,),
        "attn": (2, 1, 20, 7),
        "ids_slice": (2,),
        "x_mask": tokens,
        "y_mask": (2, 1, 20),
        **dict.fromkeys(("z", "z_p", "m_p", "logs_p", "m_q", "logs_q"), frames),
        "hidden_x": (2, tiny.HIDDEN, 7),
        **dict.fromkeys(("logw", "logw_", "logw_sdp"), tokens),
        "g": (2, tiny.GIN, 1),
    }
    assert torch.equal(out.attn.sum(3).squeeze(1), out.y_mask.squeeze(1))  # a token for every frame
    assert out.o.abs().max() < 1


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_every_parameter_gets_a_gradient(variant):
    net = tiny.synthesizer(variant).train()
    tiny.randomise(net)
    # the reference encoder's GRU needs two steps
    out = net(tiny.text(batch=3), **tiny.speech(batch=3, frames=70))
    loss = (
        out.l_length.sum()
        + out.o.square().sum()
        + kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)
    )
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert tiny.without_gradient(net) == set()


def test_new_flow_and_new_durations_are_the_identity():
    """Flows start at zero: the posterior's z meets the prior unchanged, but for flips."""
    net = tiny.synthesizer().eval()
    out = net(tiny.text(), **tiny.speech())
    assert torch.allclose(out.z_p, out.z)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_inference(variant):
    net = tiny.synthesizer(variant).eval()
    reference = tiny.speech()["y"] if variant == "reference_encoder" else None
    out = net.infer(tiny.text(), y=reference, sdp_ratio=0.5, length_scale=3.0)
    frames = out.y_mask.size(2)
    assert out.o.shape == (2, 1, frames * tiny.HOP)
    assert torch.equal(out.attn.sum(3).squeeze(1), out.y_mask.squeeze(1))
    assert not out.o.requires_grad
    limited = net.infer(tiny.text(), y=reference, max_len=2)
    assert limited.o.size(2) == 2 * tiny.HOP


def test_a_prior_is_cut_where_it_grows_too_long():
    w = torch.tensor([[[2.0, 3.0, 0.0]], [[2.0, math.inf, 4.0]], [[math.nan, 9.0, 1.0]]])
    prior = Prior(w, torch.empty(3, 4, 3), torch.empty(3, 4, 3), torch.empty(3, 1, 1))
    cut = prior.limited(6)
    assert cut.w.squeeze(1).tolist() == [[2, 3, 0], [2, 4, 0], [0, 6, 0]]
    assert cut.frames().tolist() == [5, 6, 6]
    assert torch.equal(prior.limited(100).w[0], w[0])


def test_padding_changes_nothing():
    """The first item gives the same alone as beside a longer one."""
    net = tiny.synthesizer(use_noise_scaled_mas=False).eval()
    tiny.randomise(net)
    text, speech = tiny.text(tokens=7), tiny.speech(frames=20)
    text.x_lengths[0], speech["y_lengths"][0] = 5, 15
    one_text = tiny.item(text, 0, 5)
    one_speech = {"y": speech["y"][:1, :, :15], "y_lengths": speech["y_lengths"][:1]}
    g = net.speaker(text.sid, None)
    many = net.enc_p(text, g=g)
    one = net.enc_p(one_text, g=g[:1])
    assert torch.allclose(many[0][:1, :, :5], one[0], atol=1e-5)
    z = torch.randn(2, 4, 20)
    mask = (torch.arange(20) < speech["y_lengths"][:, None]).float().unsqueeze(1)
    z_p = net.flow(z * mask, mask, g=g)
    assert torch.allclose(
        z_p[:1, :, :15], net.flow(z[:1, :, :15], mask[:1, :, :15], g=g[:1]), atol=1e-5
    )
    assert net(one_text, **one_speech).attn.shape == (1, 1, 15, 5)


@pytest.mark.parametrize("variant", [name for name in tiny.VARIANTS if name != "reference_encoder"])
def test_a_batch_speaks_as_its_items_do_alone(variant):
    net = tiny.synthesizer(variant).eval()
    tiny.randomise(net)
    text = tiny.text(batch=3)
    text.x_lengths[:] = torch.tensor([7, 3, 5])
    noise = torch.randn(3, 2, 7)
    scales = {
        "noise_scale_w": torch.tensor([0.8, 0.5, 1.0]),
        "length_scale": torch.tensor([2.0, 1.0, 4.0]),
    }
    scales = {name: scale.view(3, 1, 1) for name, scale in scales.items()}
    prior = net.plan(text, noise=noise, sdp_ratio=0.5, **scales)
    frames = prior.frames()
    assert len(set(frames.tolist())) == 3
    noise_y = torch.randn(3, 4, int(frames.max()))
    together = net.render(prior, noise_y, apart=True).o
    leaking = net.render(prior, noise_y).o
    for i, (tokens, own) in enumerate(zip(text.x_lengths.tolist(), frames.tolist(), strict=True)):
        one = tiny.item(text, i, tokens)
        own_scales = {name: scale[i].item() for name, scale in scales.items()}
        alone = net.plan(one, noise=noise[i : i + 1, :, :tokens], sdp_ratio=0.5, **own_scales)
        assert torch.equal(alone.w, prior.w[i : i + 1, :, :tokens])
        o = net.render(alone, noise_y[i : i + 1, :, :own]).o
        assert torch.allclose(together[i : i + 1, :, : own * tiny.HOP], o, atol=1e-5)
        assert torch.allclose(leaking[i : i + 1, :, : own * tiny.HOP], o, atol=1e-5) == (
            own == frames.max()
        )


def test_the_reference_encoder_listens():
    net = tiny.synthesizer("reference_encoder").eval()
    quiet, loud = (net.speaker(None, scale * tiny.speech()["y"]) for scale in (0.1, 10.0))
    assert quiet.shape == (2, tiny.GIN, 1)
    assert not torch.allclose(quiet, loud)


def test_mas_noise_scale_is_set_from_outside():
    net = tiny.synthesizer().eval()
    assert net.search.noise == net.search.first_noise
    paths = []
    for scale in (0.0, 1e3):
        net.search.noise = scale
        torch.manual_seed(0)
        paths.append(net(tiny.text(), **tiny.speech()).attn)
    assert not torch.equal(*paths)


def test_the_prior_of_the_alignment_is_beta_binomial():
    x_lengths, y_lengths = torch.tensor([7, 12]), torch.tensor([40, 31])
    prior = beta_binomial_prior(x_lengths, y_lengths, t_x=12, t_y=40)
    assert prior.shape == (2, 40, 12)
    for item, tokens, frames in ((0, 7, 40), (1, 12, 31)):
        p = prior[item, :frames, :tokens].double().exp()
        torch.testing.assert_close(p.sum(1), torch.ones(frames).double(), rtol=1e-4, atol=0)
        # its mean is n alpha / (alpha + beta), and both ends are alike
        mean = (tokens - 1) * torch.arange(1, frames + 1).double() / (frames + 1)
        torch.testing.assert_close(p @ torch.arange(tokens).double(), mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(p, p.flip(0, 1), rtol=1e-3, atol=1e-9)


def test_a_heavy_prior_holds_the_alignment_to_the_diagonal():
    net = tiny.synthesizer().eval()
    net.search = AlignmentSearch(first_prior=1e6, prior_steps=100)
    away = []
    for steps in (0, 100):
        net.search.anneal(steps)
        torch.manual_seed(0)
        out = net(tiny.text(), **tiny.speech())
        frames, tokens = out.attn[0, 0].nonzero(as_tuple=True)
        shares = [
            (at + 0.5) / mask.sum()
            for at, mask in ((frames, out.y_mask[0]), (tokens, out.x_mask[0]))
        ]
        away.append((shares[0] - shares[1]).abs().max())
    assert net.search.prior == 0
    assert away[0] < 0.2 < away[1]


def test_bfloat16_keeps_losses_finite():
    net = tiny.synthesizer().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(tiny.text(), **tiny.speech())
    assert out.l_length.dtype == out.z_p.dtype == out.logs_p.dtype == torch.float32
    out.l_length.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_networks_can_be_copied_after_a_step():
    net = tiny.synthesizer()
    net(tiny.text(), **tiny.speech()).o.sum().backward()
    clone = copy.deepcopy(net)
    assert clone.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gin_channels": 0}, "gin_channels"),
        ({"n_layers": 2}, "n_layers"),
        ({"n_layers_trans_flow": 2}, "n_layers_trans_flow"),
        ({"n_heads": 3}, "n_heads"),
        ({"inter_channels": 5}, "inter_channels"),
        ({"resblock": "3"}, "resblock"),
        ({"upsample_kernel_sizes": [8]}, "upsample_kernel_sizes"),
        ({"upsample_kernel_sizes": [7, 4]}, "upsample_kernel_sizes"),
        ({"resblock_dilation_sizes": [[1, 3]]}, "resblock_dilation_sizes"),
        ({"upsample_initial_channel": 2}, "upsample_initial_channel"),
    ],
)
def test_refusals_name_the_argument(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.synthesizer(**changes)


def test_too_short_a_batch_is_refused():
    with pytest.raises(ValueError, match="segment_size"):
        tiny.synthesizer()(tiny.text(tokens=2), **tiny.speech(frames=3))


def test_a_model_without_speakers_needs_a_reference():
    with pytest.raises(ValueError, match="n_speakers"):
        tiny.synthesizer("reference_encoder").infer(tiny.text())
