"""Bias, residual and leaky ReLU in one kernel are what they are one by one."""

import pytest
import torch
from torch import Tensor, nn

from trainable.networks.discriminators.period import DiscriminatorP, DiscriminatorS
from trainable.networks.discriminators.wavlm import WavLMDiscriminator
from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.bias import (
    add_bias,
    add_bias_backward_in_torch,
    add_bias_in_torch,
    add_bias_to_both,
)
from trainable.networks.layers.modules import ResBlock1

kernels = pytest.importorskip("trainable.networks.kernels.convolutions.bias_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(*sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=g, dtype=dtype).to(DEVICE) for size in sizes]


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_triton_computes_what_torch_does(dtype, slope, both):
    size = (3, 5, 41, 7)
    x, residual, to, to_total = drawn(size, size, size, size, dtype=dtype)
    (bias,) = drawn((5,), dtype=torch.promote_types(dtype, torch.float32))
    tolerance = {"rtol": 2e-2, "atol": 3e-2} if dtype == torch.bfloat16 else {}
    for added in (None, residual):
        found = kernels.forward(x, bias, added, slope, both)
        expected = add_bias_in_torch(x, bias, added, slope, both)
        torch.testing.assert_close(found, expected, **tolerance)
    for total in (None, to_total):
        found = kernels.backward(to, total, expected[0], slope)
        expected_gradient = add_bias_backward_in_torch(to, total, expected[0], slope)
        torch.testing.assert_close(found, expected_gradient, **tolerance)


def test_gradients_are_those_of_the_values():
    x, bias, residual = (t.requires_grad_() for t in drawn((2, 3, 4), (3,), (2, 3, 4)))
    assert torch.autograd.gradcheck(lambda *t: add_bias(*t, slope=0.1), (x, bias))
    assert torch.autograd.gradcheck(
        lambda x, bias, residual: add_bias_to_both(x, bias, 0.1, residual), (x, bias, residual)
    )


def outputs(net: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    net.zero_grad()
    made = net(x)
    made = [made] if isinstance(made, Tensor) else [made[0], *made[1]]
    torch.stack([out.square().sum() for out in made]).sum().backward()
    return [*made, x.grad, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (lambda: ResBlock1(4, 3, (1, 3, 5)), (2, 4, 9)),
        (lambda: DiscriminatorP(2, width_divisor=16), (2, 1, 101)),
        (lambda: DiscriminatorP(5, width_divisor=16), (2, 1, 101)),
        (lambda: DiscriminatorS(width_divisor=16), (2, 1, 101)),
        (lambda: WavLMDiscriminator(4, 3, 2), (2, 12, 9)),
    ],
)
def test_a_network_computes_the_same_in_both_ways(net, size, monkeypatch):
    torch.manual_seed(0)
    net = net().double().to(DEVICE)
    (x,) = drawn(size)
    found = []
    for joined in (False, True):
        monkeypatch.setattr(support, "joined", lambda x, joined=joined: joined)
        monkeypatch.setattr(support, "on_gpu", lambda x, joined=joined: joined)
        found.append(outputs(net, x))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
