"""Norm and GELU as one operator: closed forms and Triton kernels beside torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.networks.kernels import norm_gelu as definition
from trainable.networks.kernels.norm_gelu import norm_gelu

kernels = pytest.importorskip("trainable.networks.kernels.norm_gelu_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-5


def case(dtype: torch.dtype, full: bool, C: int = 24, T: int = 19) -> list[Tensor | None]:
    """Input, bias, gamma, beta, residual and mask; without the optional ones if not full."""
    g = torch.Generator().manual_seed(0)
    weights = torch.promote_types(dtype, torch.float32)
    x, residual = torch.randn(2, 2, C, T, generator=g).to(DEVICE, dtype)
    bias, gamma, beta = torch.randn(3, C, generator=g).to(DEVICE, weights)
    mask = (torch.arange(T) < torch.tensor([T, 7])[:, None]).unsqueeze(1).to(DEVICE, dtype)
    optional = (bias, residual, mask) if full else (None, None, None)
    return [x, optional[0], gamma, beta, *optional[1:]]


def plain(x, bias, gamma, beta, residual, mask) -> Tensor:
    x = x if bias is None else x + bias[:, None]
    y = F.gelu(F.layer_norm(x.transpose(1, 2), x.shape[1:2], gamma, beta, EPS)).transpose(1, 2)
    y = y if residual is None else residual + y
    return y if mask is None else y * mask


@pytest.mark.parametrize("given", ["nothing", "all", "mask", "residual"])
def test_closed_form(given):
    inputs = case(torch.float64, full=given != "nothing")
    if given == "mask":
        inputs[4] = None
    if given == "residual":
        inputs[5] = None
    learned = [t.requires_grad_() for t in inputs[:5] if t is not None]
    ours, theirs = norm_gelu(*inputs, eps=EPS), plain(*inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    to = torch.randn_like(theirs)
    found, wanted = (torch.autograd.grad(out, learned, to) for out in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-11), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)],
    ids=str,
)
def test_triton_kernels(dtype, tolerance, full):
    inputs = case(dtype, full)
    x, bias, gamma, beta, _, mask = inputs
    close = {"rtol": tolerance, "atol": tolerance}
    out, kept = definition.norm_gelu_in_torch(*inputs, EPS)
    torch.testing.assert_close(kernels.forward(*inputs, EPS), out, **close)
    to = torch.randn_like(x).transpose(1, 2).contiguous().transpose(1, 2)  # any layout
    given = x, bias, gamma, beta, mask, to, full, EPS
    wanted = definition.norm_gelu_backward_in_torch(*given, kept)
    found = kernels.backward(*given, [])
    for ours, theirs in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(ours, theirs, **close)
    first = 0 if full else 1  # without a bias its gradient is not looked at
    size = wanted[2].abs().max()
    torch.testing.assert_close(found[2][first:] / size, wanted[2][first:] / size, **close)
