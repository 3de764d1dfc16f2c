"""Flows and splines are invertible, and their log determinants are true."""

import pytest
import torch

from tests.trainable.networks import tiny
from trainable.networks.generator.duration import (
    ConvFlow,
    ElementwiseAffine,
    StochasticDurationPredictor,
)
from trainable.networks.generator.flows import ResidualCouplingBlock, TransformerCouplingBlock
from trainable.networks.kernels.spline import spline

BOUND = 5.0


@pytest.fixture
def mask():
    return (torch.arange(11) < torch.tensor([11, 6])[:, None]).float().unsqueeze(1)


@pytest.mark.parametrize(
    "flow",
    [
        pytest.param(lambda: ResidualCouplingBlock(4, 8, 5, 1, 3, gin_channels=6), id="residual"),
        pytest.param(
            lambda: TransformerCouplingBlock(4, 8, 12, 2, 3, 5, 0.1, gin_channels=6),
            id="transformer",
        ),
        pytest.param(
            lambda: TransformerCouplingBlock(
                4, 8, 12, 2, 3, 5, 0.1, gin_channels=6, share_parameter=True
            ),
            id="shared",
        ),
    ],
)
def test_coupling_blocks_invert(flow, mask):
    torch.manual_seed(0)
    net = flow().eval()
    tiny.randomise(net)
    x, g = torch.randn(2, 4, 11) * mask, torch.randn(2, 6, 1)
    z = net(x, mask, g=g)
    assert not torch.allclose(z, x, atol=0.1)
    assert torch.allclose(net(z, mask, g=g, reverse=True), x, atol=1e-4)


def test_duration_flows_invert(mask):
    torch.manual_seed(0)
    affine, coupling = ElementwiseAffine(2), ConvFlow(2, 8, 3, n_layers=3)
    x, g = 3 * torch.randn(2, 2, 11) * mask, torch.randn(2, 8, 11)
    for net in (affine, coupling):
        tiny.randomise(net)
    assert torch.allclose(affine.inverse(affine(x, mask)[0], mask), x, atol=1e-4)
    assert torch.allclose(coupling.inverse(coupling(x, mask, g)[0], mask, g), x, atol=1e-4)


def random_spline(count: int, dtype: torch.dtype = torch.float64, bins: int = 10):
    generator = torch.Generator().manual_seed(0)
    sizes = (bins, bins, bins - 1)
    shape = [2 * torch.randn(count, size, generator=generator, dtype=dtype) for size in sizes]
    return torch.linspace(-BOUND - 2, BOUND + 2, count, dtype=dtype), shape


def splined(
    inputs: torch.Tensor, shape: list[torch.Tensor], inverse: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and log derivatives [N] of inputs [N], each with its widths, heights, derivatives."""
    parameters = torch.cat(shape, dim=-1).t().unsqueeze(0)
    x = inputs.reshape(1, 1, -1)
    found = spline(x, parameters, torch.ones_like(x), inverse=inverse, bound=BOUND)
    return found[0].flatten(), found[1].flatten()


def test_splines_invert():
    inputs, shape = random_spline(401)
    outputs, log_derivative = splined(inputs, shape)
    back, log_inverse = splined(outputs, shape, inverse=True)
    assert torch.allclose(back, inputs, atol=1e-8)
    assert torch.allclose(log_inverse, -log_derivative, atol=1e-6)
    outside = inputs.abs() > BOUND
    assert torch.equal(outputs[outside], inputs[outside])
    assert not log_derivative[outside].any()


def test_spline_derivative_is_the_slope():
    inputs, shape = random_spline(399)
    inputs.requires_grad_()
    outputs, log_derivative = splined(inputs, shape)
    (slope,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.allclose(slope.log(), log_derivative, atol=1e-8)


@pytest.mark.parametrize("inverse", [False, True])
def test_splines_are_finite_at_the_ends(inverse):
    """Values and gradients at, beside and far beyond the bound; half precision gets fp32."""
    ends = torch.tensor([-BOUND, BOUND, BOUND * (1 + 1e-7), -BOUND * (1 - 1e-7), 1e30, -1e30, 0.0])
    _, shape = random_spline(len(ends), torch.float32)
    parameters = [part.requires_grad_() for part in shape]
    outputs, log_derivative = splined(ends, parameters, inverse)
    assert torch.allclose(outputs[:6], ends[:6], rtol=1e-5)
    (outputs.sum() + log_derivative.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    halves = [part.detach().bfloat16() for part in shape]
    outputs, _ = splined(ends.bfloat16(), halves, inverse)
    assert outputs.dtype == torch.float32


@pytest.mark.medium
def test_likelihood_bound_falls_in_training(mask):
    torch.manual_seed(0)
    net = StochasticDurationPredictor(8, 192, 3, 0.0, gin_channels=0)
    x, w = torch.randn(2, 8, 11), torch.randint(1, 9, (2, 1, 11)).float() * mask
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = net(x, mask, w).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
    assert net(x, mask, reverse=True, noise_scale=0.5).shape == (2, 1, 11)
