"""Weights that are normalised together are those that are normalised one by one."""

import pytest
import torch
from torch import Tensor, nn

from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.weight_norm import (
    JoinedWeights,
    rows_backward_in_torch,
    rows_in_torch,
)
from trainable.networks.layers.modules import ResBlock1
from trainable.networks.layers.weight_norm import fixed_weights, joined_weights

kernels = pytest.importorskip("trainable.networks.kernels.convolutions.weight_norm_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [3, 3, 1, 2500, 1024]


def drawn(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=g, dtype=dtype).to(DEVICE)


@pytest.mark.parametrize("made", [torch.float64, torch.float32, torch.bfloat16])
def test_triton_computes_what_torch_does(made):
    dtype = torch.promote_types(made, torch.float32)
    starts = torch.tensor([0, *LENGTHS], device=DEVICE).cumsum(0)
    v, g = drawn(sum(LENGTHS), dtype=dtype), drawn(len(LENGTHS), 1, dtype)
    w = kernels.forward(v, g, starts, made)
    assert w.dtype == made
    torch.testing.assert_close(w, rows_in_torch(v, g, starts, made))
    to = drawn(sum(LENGTHS), 2, dtype).to(made)
    found = kernels.backward(to, v, g, starts)
    for one, other in zip(found, rows_backward_in_torch(to, v, g, starts), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_the_values():
    starts = torch.tensor([0, 3, 6, 10], device=DEVICE)
    parts = [drawn(6).view(2, 3), drawn(4, 1).view(1, 2, 2), drawn(2, 2).view(2, 1), drawn(1, 3)]
    parts = [part.requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(
        lambda *parts: JoinedWeights.apply(starts, torch.float64, *parts), parts
    )


def outputs(net: nn.Module, x: Tensor) -> list[Tensor]:
    net.zero_grad()
    with joined_weights(net):
        out = net(x)
    out.square().sum().backward()
    return [out, *(p.grad for p in net.parameters())]


def test_a_network_computes_the_same_in_both_ways(monkeypatch):
    torch.manual_seed(0)
    net = ResBlock1(4, 3, (1, 3, 5)).double().to(DEVICE)
    x = drawn(2 * 4 * 9).view(2, 4, 9)
    found = []
    for joined in (False, True):
        monkeypatch.setattr(support, "joined", lambda x, joined=joined: joined)
        found.append(outputs(net, x))
        assert net.convs1[0].fixed is None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)

    with fixed_weights(net):
        fixed = net.convs1[0].fixed
        assert not fixed.requires_grad
        with joined_weights(net):  # there is nothing left to do
            assert net.convs1[0].fixed is fixed


def test_what_is_computed_again_is_not_joined(monkeypatch):
    monkeypatch.setattr(support, "joined", lambda x: True)
    net = ResBlock1(4, 3, (1, 3, 5))
    with joined_weights(net):
        assert net.convs1[0].fixed is not None
    net.recompute = True
    with joined_weights(net):
        assert net.convs1[0].fixed is None
