"""The spline's closed forms and Triton kernels are what autograd makes of its definition."""

import pytest
import torch
from torch import Tensor

from trainable.networks.kernels import spline as definition
from trainable.networks.kernels.spline import spline, spline_in_torch

kernels = pytest.importorskip("trainable.networks.kernels.spline_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOUND, SCALE = 5.0, 13.9
DIRECTIONS = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])


def case(dtype: torch.dtype = torch.float64, bins: int = 10, halves: int = 1, T: int = 37):
    """Inputs [2, halves, T] inside, outside and on the bounds; parameters, mask, and log_det."""
    g = torch.Generator().manual_seed(bins)
    x = 4 * torch.randn(2, halves, T, generator=g)
    x[0, 0, :5] = torch.tensor([-BOUND, BOUND, 0.0, 1e30, -7.0])
    shape = 20 * torch.randn(2, halves * (3 * bins - 1), T, generator=g)
    mask = (torch.arange(T) < torch.tensor([T, T // 2])[:, None]).unsqueeze(1)
    log_det = torch.randn(2, halves, T, generator=g)
    return [tensor.to(DEVICE, dtype) for tensor in (x, shape, mask, log_det)]


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors]


@DIRECTIONS
@pytest.mark.parametrize(("bins", "halves"), [(10, 1), (10, 2), (2, 1), (16, 1)])
def test_closed_form(inverse, bins, halves):
    x, shape, mask, log_det = case(bins=bins, halves=halves)
    inputs = leaves(x, shape, log_det)
    ours = spline(*inputs[:2], mask, inputs[2], inverse=inverse, bound=BOUND, scale=SCALE)
    plain, total, _ = spline_in_torch(*inputs[:2], mask, inputs[2], inverse, BOUND, SCALE)
    torch.testing.assert_close(ours, (plain, total), rtol=1e-9, atol=1e-12)
    to = [torch.randn_like(plain) for _ in ours]
    for one in ([0], [1], [0, 1]):  # gradients of either output, or both
        found = torch.autograd.grad([ours[i] for i in one], inputs[:2], to[: len(one)], True)
        wanted = torch.autograd.grad(
            [(plain, total)[i] for i in one], inputs[:2], to[: len(one)], True
        )
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


@DIRECTIONS
def test_gradcheck(inverse):
    x, shape, mask, log_det = case(bins=4, T=9)
    x[0, 0, :2] *= 0.99  # the derivative jumps on the bound

    def both(x: Tensor, shape: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        return spline(x, shape, mask, log_det, inverse=inverse, bound=BOUND, scale=SCALE)

    assert torch.autograd.gradcheck(both, leaves(x.clamp(-9, 9), shape, log_det))


@DIRECTIONS
def test_inputs_on_knots(inverse):
    """Both neighbours agree there, in value and slope: which bin is taken changes nothing."""
    _, shape, mask, _ = case(T=11)
    shape = shape / 10  # gentle slopes, so that a value beside a knot is near that on it
    found = definition.find_bins(
        torch.zeros_like(shape[:, :1]), definition.rows_of(shape, 1), False, BOUND, SCALE
    )
    shares = definition.MIN_SIZE + (1 - definition.MIN_SIZE * 10) * found.soft
    knots = 2 * BOUND * shares.cumsum(-1)[..., int(inverse), :] - BOUND  # [B, 1, T, K]
    x = knots[0, 0, 3, :9].repeat(2, 1, 1)
    shape, mask = shape[:, :, 3:4].expand(-1, -1, 9), torch.ones_like(x)
    values = [
        spline(at, shape, mask, inverse=inverse, bound=BOUND, scale=SCALE)
        for at in leaves(x - 1e-9, x, x + 1e-9)
    ]
    for below, on, above in zip(*values, strict=True):
        torch.testing.assert_close(below, on, rtol=0, atol=1e-6)
        torch.testing.assert_close(above, on, rtol=0, atol=1e-6)


@pytest.mark.medium  # the interpreter takes its time
@DIRECTIONS
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 2e-4), (torch.bfloat16, 2e-2)],
    ids=str,
)
def test_triton_kernels(inverse, dtype, tolerance, monkeypatch):
    if DEVICE == "cpu":  # the interpreter takes as long for a large block: two, one of them full
        monkeypatch.setattr(kernels, "BLOCK", 128)
    x, shape, mask, log_det = case(dtype, halves=2)
    shape = shape.transpose(1, 2).contiguous().transpose(1, 2)  # any layout
    settings = inverse, BOUND, SCALE
    y, total, kept = spline_in_torch(x, shape, mask, log_det, *settings)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(
        kernels.forward(x, shape, mask, log_det, *settings), (y, total), **close
    )
    alone = kernels.forward(x, shape, mask, None, *settings)[1] + log_det
    torch.testing.assert_close(alone, total, **close, check_dtype=False)
    to = torch.randn_like(y)
    for to_output, to_log in ((to, None), (None, to), (to[..., :1].expand_as(to), to)):
        wanted = definition.spline_backward_in_torch(
            x, shape, mask, to_output, to_log, *settings, kept
        )
        found = kernels.backward(x, shape, mask, to_output, to_log, *settings, [])
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(
                ours / theirs.abs().max(), theirs / theirs.abs().max(), **close
            )


@DIRECTIONS
def test_half_precision_is_computed_in_fp32(inverse):
    x, shape, mask, _ = case(torch.bfloat16)
    inputs = leaves(x, shape)
    y, log_det = spline(*inputs, mask, inverse=inverse, bound=BOUND, scale=SCALE)
    wide = [tensor.float() for tensor in (x, shape, mask)]
    wanted = spline(*wide, inverse=inverse, bound=BOUND, scale=SCALE)
    torch.testing.assert_close((y, log_det), wanted, rtol=0, atol=0)
    of_x, of_shape = torch.autograd.grad(y.sum() + log_det.sum(), inputs)
    assert of_x.dtype == of_shape.dtype == torch.bfloat16


def test_a_nan_stays_one():
    """A step tells of it: it is not swapped for a number."""
    x, shape, mask, _ = case(torch.float32)
    x[0, 0, 3] = torch.nan
    y, _ = spline(x, shape, mask, bound=BOUND)
    assert y.isnan().nonzero().tolist() == [[0, 0, 3]]
    assert kernels.forward(x, shape, mask, None, False, BOUND, 1.0)[0].isnan().sum() == 1
