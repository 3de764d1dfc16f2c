"""WaveNet's gate in one kernel is what it is one operator after the other."""

import pytest
import torch
from torch import Tensor

from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.gate import Gate, gate_backward_in_torch, gate_in_torch
from trainable.networks.layers.modules import WN

kernels = pytest.importorskip("trainable.networks.kernels.convolutions.gate_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(*sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=g, dtype=dtype).to(DEVICE) for size in sizes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_triton_computes_what_torch_does(dtype):
    x, to, shift = drawn((2, 6, 300), (2, 3, 300), (2, 6), dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    tolerance = {} if dtype == wide else {"rtol": 2e-2, "atol": 1e-2}
    out = kernels.forward(x, shift)
    assert out.dtype == dtype
    expected = gate_in_torch(x.to(wide), shift.to(wide))
    torch.testing.assert_close(out.to(wide), expected, **tolerance)
    of_x = kernels.backward(to, x, shift)
    expected = gate_backward_in_torch(to.to(wide), x.to(wide), shift.to(wide))
    torch.testing.assert_close(of_x.to(wide), expected, **tolerance)


def test_large_values_stay_finite():
    x = torch.tensor([[[-500.0, 500.0], [500.0, -500.0]]], device=DEVICE)
    shift = torch.zeros(1, 2, device=DEVICE)
    assert kernels.forward(x, shift).tolist() == [[[-1.0, 0.0]]]
    assert kernels.backward(x[:, :1], x, shift).isfinite().all()


def test_gradients_are_those_of_the_values():
    x, shift = (t.requires_grad_() for t in drawn((2, 4, 5), (2, 4)))
    assert torch.autograd.gradcheck(Gate.apply, (x, shift))


def outputs(net: WN, x: Tensor, g: Tensor | None) -> list[Tensor]:
    x = x.clone().requires_grad_()
    net.zero_grad()
    out = net(x, torch.ones_like(x[:, :1]), g)
    out.square().sum().backward()
    return [out, x.grad, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("gin", [0, 3])
def test_a_network_computes_the_same_in_both_ways(gin, monkeypatch):
    torch.manual_seed(0)
    net = WN(4, 3, 2, 3, gin).double().to(DEVICE)
    x, g = drawn((2, 4, 9), (2, 3, 1))
    found = []
    for joined in (False, True):
        monkeypatch.setattr(support, "joined", lambda x, joined=joined: joined)
        found.append(outputs(net, x, g if gin else None))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
