"""Weights that are cast together are those that autocast casts one by one."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.casts import Casts
from trainable.networks.layers.weight_norm import WeightNormConv1d, joined_weights


def test_casts_and_their_gradients():
    weights = [torch.rand(3).requires_grad_(), torch.rand(2, 2).requires_grad_()]
    unused = torch.rand(4).requires_grad_()
    first, second, _ = Casts.apply(torch.bfloat16, *weights, unused)
    assert torch.equal(first, weights[0].bfloat16())
    (first.sum() * 3 + second.float().square().sum()).backward()
    assert torch.equal(weights[0].grad, torch.full((3,), 3.0))
    assert weights[1].grad.dtype == torch.float32
    assert unused.grad is None


def outputs(net: nn.Module, x: Tensor) -> list[Tensor]:
    net.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16), joined_weights(net):
        out = net(x)
    out.float().square().sum().backward()
    return [out, *(p.grad for p in net.parameters())]


@pytest.fixture
def autocast_of_cuda() -> Iterator[None]:
    """Let CUDA's autocast be on; without CUDA its own context would not."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    yield
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", torch.float16)


def test_a_network_has_its_weights_back(monkeypatch, autocast_of_cuda):
    net = nn.Sequential(nn.Conv1d(3, 4, 3), WeightNormConv1d(4, 4, 1), nn.Linear(5, 2))
    before = dict(net.named_parameters())
    x = torch.randn(2, 3, 7)
    found = []
    for joined in (False, True):
        monkeypatch.setattr(support, "joined", lambda x, joined=joined: joined)
        found.append(outputs(net, x))
        assert all(p is before[name] for name, p in net.named_parameters())
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)

    with joined_weights(net):
        assert net[2].weight.dtype == torch.bfloat16
    net[2].recompute = True
    with joined_weights(net):
        assert net[2].weight.dtype == torch.float32
