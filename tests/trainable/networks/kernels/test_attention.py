"""Attention in few kernels gives what it gives in many, with its gradients."""

import math

import pytest
import torch
from torch import Tensor

from trainable.networks.kernels import support
from trainable.networks.kernels.attention import (
    RelativeAttention,
    softmax_backward_in_torch,
    softmax_in_torch,
)
from trainable.networks.layers.attentions import MultiHeadAttention

kernels = pytest.importorskip("trainable.networks.kernels.attention_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PADDING = torch.tensor([[False] * 5 + [True] * 2, [False] * 7]).unsqueeze(1).to(DEVICE)


def drawn(*sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=g, dtype=dtype).to(DEVICE) for size in sizes]


@pytest.mark.medium  # the interpreter takes its time
@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_triton_computes_what_torch_does(dtype, p, window):
    square, band = (2, 3, 7, 7), (2, 3, 7, 2 * window + 1)
    scores, near, to, to_band = drawn(square, band, square, band, dtype=dtype)
    keep = None if p == 0 else drawn(square)[0] > -0.5
    wide = torch.promote_types(dtype, torch.float32)
    forward = kernels.forward(scores, near, PADDING, keep, p, 0.7)
    expected = softmax_in_torch(scores.to(wide), near.to(wide), PADDING, keep, p, 0.7)
    tolerance = {} if dtype == wide else {"rtol": 1e-2, "atol": 1e-2}
    for one, other in zip(forward, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.to(wide), other, **tolerance)
    weights = expected[0].to(dtype)
    backward = kernels.backward(to, to_band, weights, PADDING, keep, p, 0.7)
    given = (x.to(wide) for x in (to, to_band, weights))
    expected = softmax_backward_in_torch(*given, PADDING, keep, p, 0.7)
    for one, other in zip(backward, expected, strict=True):
        torch.testing.assert_close(one.to(wide), other, **tolerance)


def test_gradients_are_those_of_the_values():
    inputs = drawn((2, 12, 7), (12,), (5, 2), (5, 2))
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: RelativeAttention.apply(*x, PADDING, 2, 0.0), inputs)


def outputs(net: MultiHeadAttention, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    net.zero_grad()
    out = net(x, PADDING.unsqueeze(1)) * ~PADDING
    out.square().sum().backward()
    return [out, x.grad, *(p.grad for p in net.parameters())]


def test_the_layer_computes_the_same_in_both_ways(monkeypatch):
    torch.manual_seed(0)
    net = MultiHeadAttention(8, 2, window_size=2).double().to(DEVICE)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    (x,) = drawn((2, 8, 7))
    found = []
    for joined in (False, True):
        monkeypatch.setattr(support, "joined", lambda x, joined=joined: joined)
        found.append(outputs(net, x))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_dropout_takes_its_share(monkeypatch):
    monkeypatch.setattr(support, "joined", lambda x: True)
    torch.manual_seed(0)
    values = torch.ones(1, 3 * 64, 200, dtype=torch.float64, device=DEVICE)
    rel = torch.zeros(9, 64, dtype=torch.float64, device=DEVICE)
    padding = torch.zeros(1, 1, 200, dtype=torch.bool, device=DEVICE)
    heard = RelativeAttention.apply(values, values[0, :, 0] * 0, rel, rel, padding, 1, 0.25)
    assert heard.mean().item() == pytest.approx(1.0, abs=0.02)
    # the mean of 200 weights, each dropped with this probability
    assert heard[0, 0].std().item() == pytest.approx(math.sqrt(0.25 / 0.75 / 200), rel=0.3)
