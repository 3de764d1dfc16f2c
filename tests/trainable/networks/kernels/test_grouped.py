"""Convolutions in groups are what torch's are, and the networks that have such take them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from transformers import WavLMConfig, WavLMModel

from trainable.networks.discriminators.period import DiscriminatorS
from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions import grouped
from trainable.networks.kernels.convolutions.grouped import grouped_conv1d
from trainable.networks.wavlm import WavLMFeatures

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@given(
    groups=st.integers(1, 4),
    each=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.integers(1, 11),
    stride=st.integers(1, 6),
    padding=st.integers(0, 7),
    frames=st.integers(1, 40),
    batch=st.integers(1, 3),
)
def test_values_and_gradients(groups, each, kernel, stride, padding, frames, batch):
    assume(frames + 2 * padding >= kernel)
    g = torch.Generator().manual_seed(0)
    size = {"generator": g, "dtype": torch.float64}
    x = torch.randn(batch, groups * each[0], frames, **size).to(DEVICE).requires_grad_()
    weight = torch.randn(groups * each[1], each[0], kernel, **size).to(DEVICE).requires_grad_()
    theirs = F.conv1d(x, weight, None, stride, padding, 1, groups)
    ours = grouped_conv1d(x, weight, stride, padding, groups)
    torch.testing.assert_close(ours, theirs)
    to = torch.randn(theirs.shape, **size).to(DEVICE)
    for asked in ([x, weight], [x], [weight]):
        found, wanted = (
            torch.autograd.grad(y, asked, to, retain_graph=True) for y in (ours, theirs)
        )
        torch.testing.assert_close(found, wanted)


def test_autocast_computes_in_its_type():
    x, weight = torch.randn(2, 8, 20, device=DEVICE), torch.randn(8, 2, 5, device=DEVICE)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        made = grouped_conv1d(x, weight, 2, 2, 4)
    assert made.dtype == torch.bfloat16
    expected = F.conv1d(x.bfloat16().float(), weight.bfloat16().float(), None, 2, 2, 1, 4)
    torch.testing.assert_close(made.float(), expected, rtol=2e-2, atol=2e-2)


def calls(monkeypatch: pytest.MonkeyPatch, joined: bool) -> list[tuple[int, ...]]:
    """Sizes of the windows that are multiplied from here on."""
    seen = []
    windows = grouped._windows

    def watched(*args):
        made = windows(*args)
        seen.append(tuple(made.shape))
        return made

    monkeypatch.setattr(grouped, "_windows", watched)
    monkeypatch.setattr(support, "joined", lambda x: joined)
    return seen


def test_the_scale_discriminator_multiplies_all_its_groups(monkeypatch):
    torch.manual_seed(0)
    net = DiscriminatorS().to(DEVICE)
    groups = [conv.groups for conv in net.convs if conv.groups > 1]
    seen = calls(monkeypatch, True)
    net(torch.randn(1, 1, 512, device=DEVICE))
    assert [size[0] for size in seen] == groups == [4, 16, 64, 256]


@pytest.mark.parametrize("joined", [False, True])
def test_wavlm_multiplies_its_positions(joined, monkeypatch):
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
    }
    wavlm = WavLMModel(WavLMConfig(**shape)).eval().to(DEVICE)
    wave = 0.1 * torch.randn(2, 3200, device=DEVICE)
    with torch.no_grad():
        expected = torch.stack(wavlm(wave, output_hidden_states=True).hidden_states, 1)
        features = WavLMFeatures(wavlm, 16000).to(DEVICE)
        seen = calls(monkeypatch, joined)
        found = features(wave)
    assert [size[0] for size in seen] == ([4] if joined else [])
    torch.testing.assert_close(found, expected.transpose(2, 3), rtol=1e-4, atol=1e-5)


def test_convolutions_of_single_channels_are_left_to_torch(monkeypatch):
    from trainable.networks.layers.weight_norm import Conv1d

    seen = calls(monkeypatch, True)
    conv: nn.Module = Conv1d(4, 4, 3, groups=4).to(DEVICE)
    conv(torch.randn(1, 4, 9, device=DEVICE))
    assert not seen
