"""Attention's bands, segments, paths, weight normalisation, decoder."""

import itertools
import pickle

import pytest
import torch
from torch import nn

from tests.trainable.networks import tiny
from trainable.networks.generator.alignment import maximum_path
from trainable.networks.generator.decoder import Generator
from trainable.networks.layers.attentions import (
    Encoder,
    MultiHeadAttention,
    band_to_square,
    square_to_band,
)
from trainable.networks.layers.modules import WN, Dropout
from trainable.networks.layers.segments import (
    generate_path,
    rand_slice_segments,
    sequence_mask,
    slice_segments,
)
from trainable.networks.layers.weight_norm import (
    WeightNormConv1d,
    WeightNormConv2d,
    WeightNormConvTranspose1d,
    channels_last,
    fixed_weights,
)


@pytest.mark.parametrize(("length", "window"), [(1, 4), (3, 4), (9, 4), (12, 2)])
def test_bands(length, window):
    band = torch.randn(2, 3, length, 2 * window + 1)
    square = band_to_square(band, window)
    for i, j in itertools.product(range(length), repeat=2):
        near = abs(i - j) <= window
        expected = band[:, :, i, j - i + window] if near else torch.zeros(2, 3)
        assert torch.equal(square[:, :, i, j], expected)
    again = square_to_band(square, window)
    assert torch.equal(band_to_square(again, window), square)


def test_attention_reads_no_padding():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    x = torch.randn(1, 8, 6)
    padding = torch.tensor([0, 0, 0, 0, 1, 1]).bool().view(1, 1, 1, 6)
    changed = x.clone()
    changed[:, :, 4:] += 5
    before, after = attention(x, padding), attention(changed, padding)
    assert torch.equal(before[:, :, :4], after[:, :, :4])


def test_encoder_conditions_on_the_speaker_only_with_gin_channels():
    x, mask, g = torch.randn(1, 8, 6), torch.ones(1, 1, 6), torch.randn(1, 6, 1)
    with_speaker, without = (Encoder(8, 12, 2, 3, 3, gin_channels=gin).eval() for gin in (6, 0))
    assert not torch.allclose(with_speaker(x, mask, g), with_speaker(x, mask, 2 * g))
    assert torch.equal(without(x, mask, g), without(x, mask))


def test_sequence_mask():
    expected = [[True, False, False], [True, True, True]]
    assert sequence_mask(torch.tensor([1, 3])).tolist() == expected
    assert sequence_mask(torch.tensor([1, 3]), 4)[:, 3].tolist() == [False, False]


def test_segments_of_items_shorter_than_the_segment_begin_at_zero():
    x = torch.arange(10.0).expand(3, 2, 10)
    lengths = torch.tensor([2, 4, 10])
    for seed in range(20):
        torch.manual_seed(seed)
        segments, starts = rand_slice_segments(x, lengths, 4)
        assert starts[:2].tolist() == [0, 0]
        assert 0 <= starts[2] <= 6
        assert torch.equal(segments, slice_segments(x, starts, 4))


def test_generate_path():
    path = generate_path(torch.tensor([[[2.0, 0.0, 1.0]]]), torch.ones(1, 1, 4, 3))
    assert path[0, 0].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_maximum_path_is_the_best_of_all():
    """Against every path of a small case."""
    torch.manual_seed(0)
    frames, tokens = 7, 4
    neg_cent = torch.randn(3, frames, tokens)
    path = maximum_path(neg_cent, torch.ones_like(neg_cent))
    best = torch.full((3,), -torch.inf)
    for moves in itertools.combinations(range(1, frames), tokens - 1):
        token = torch.tensor([sum(y >= move for move in moves) for y in range(frames)])
        best = torch.maximum(best, neg_cent[:, torch.arange(frames), token].sum(1))
    assert torch.allclose((path * neg_cent).sum([1, 2]), best)
    assert torch.equal(path.sum(2), torch.ones(3, frames))
    assert (path.sum(1) >= 1).all()


@pytest.mark.parametrize(
    ("normed", "plain", "shape"),
    [
        (WeightNormConv1d, nn.Conv1d, (2, 3, 9)),
        (WeightNormConv2d, nn.Conv2d, (2, 3, 9, 9)),
        (WeightNormConvTranspose1d, nn.ConvTranspose1d, (2, 3, 9)),
    ],
)
def test_weight_norm_starts_as_the_plain_layer(normed, plain, shape):
    layers = []
    for kind in (normed, plain):
        torch.manual_seed(0)
        layers.append(kind(3, 4, 3, stride=2, padding=1))
    x = torch.randn(shape)
    assert torch.allclose(layers[0](x), layers[1](x), atol=1e-6)
    assert list(layers[0].state_dict()) == ["bias", "weight_g", "weight_v"]
    layers[0].weight_g.data *= 2
    layers[0].bias.data.zero_()
    layers[1].bias.data.zero_()
    assert torch.allclose(layers[0](x), 2 * layers[1](x), atol=1e-6)
    clone = pickle.loads(pickle.dumps(layers[0]))
    assert torch.equal(clone(x), layers[0](x))


def test_wavenet_without_a_speaker():
    net = WN(4, 3, 2, 3)
    mask = sequence_mask(torch.tensor([5, 9])).float().unsqueeze(1)
    out = net(torch.randn(2, 4, 9), mask)
    assert not out[0, :, 5:].any()
    with pytest.raises(ValueError, match="kernel_size"):
        WN(4, 4, 2, 3)


def test_decoder_without_a_speaker():
    net = Generator(4, "1", [3], [[1, 3]], [4, 2], 8, [8, 4])
    assert net(torch.randn(2, 4, 5)).shape == (2, 1, 5 * 8)
    net(torch.randn(2, 4, 5)).sum().backward()
    assert tiny.without_gradient(net) == set()


def test_dropout_drops_as_often_as_asked_in_any_layout():
    torch.manual_seed(0)
    drop = Dropout(0.1)
    for x in (torch.ones(4, 50, 500), torch.ones(4, 500, 50).transpose(1, 2), torch.ones(100_001)):
        y = drop(x)
        assert y.stride() == x.stride()
        assert (y == 0).float().mean() == pytest.approx(0.1, abs=0.004)
        assert y.max() == pytest.approx(1 / 0.9, rel=1e-4)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize(
    "conv",
    [
        WeightNormConv1d(6, 4, 5, dilation=2, padding="same"),
        WeightNormConv1d(6, 4, 5, stride=2, padding=1, groups=2),
        WeightNormConvTranspose1d(6, 4, 8, 4, padding=2),
    ],
)
def test_convolutions_keep_the_layout_and_the_numbers(conv):
    x = torch.rand(2, 6, 20)
    y, last = conv(x), conv(channels_last(x))
    assert torch.allclose(y, last, atol=1e-6)
    assert y.is_contiguous()
    assert last.stride(1) == 1
    assert last.stride(2) == last.size(1)


def test_columns_are_a_convolution_of_width_one():
    conv, x = WeightNormConv2d(3, 4, (5, 1), (3, 1), padding=(2, 0)), torch.rand(2, 3, 20)
    assert torch.allclose(conv(x), conv(x.unsqueeze(3)).squeeze(3), atol=1e-6)


def test_fixed_weights_are_the_same_and_are_let_go():
    conv, x = WeightNormConv1d(6, 4, 5), torch.rand(2, 6, 20)
    y = conv(x)
    with fixed_weights(nn.Sequential(conv)):
        assert conv.fixed is not None
        assert torch.equal(conv(x), y)
    assert conv.fixed is None
    assert list(conv.state_dict()) == ["bias", "weight_g", "weight_v"]
