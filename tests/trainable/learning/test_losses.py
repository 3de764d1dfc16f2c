"""Losses that a GPU computes over lists of tensors are those that a CPU computes one by one."""

import pytest
import torch

from trainable.learning.losses import (
    _FeatureDistance,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from trainable.networks.kernels import support


def maps(dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    sizes = (2, 3, 7), (2, 5, 4, 3), (2, 1, 9)
    return [torch.randn(size, generator=g, dtype=torch.float64).to(dtype) for size in sizes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_feature_matching_over_lists(dtype):
    reals = maps(dtype, 0)
    made, again = ([x.requires_grad_() for x in maps(dtype, 1)] for _ in range(2))
    joined = _FeatureDistance.apply(reals, *made)
    single = feature_loss([reals[:2], reals[2:]], [again[:2], again[2:]])
    assert joined.dtype == single.dtype
    torch.testing.assert_close(joined, single)
    (3 * joined).backward()
    (3 * single).backward()
    for one, other in zip(made, again, strict=True):
        assert one.grad.dtype == dtype
        torch.testing.assert_close(one.grad, other.grad)


def test_its_gradient_is_that_of_its_values():
    reals, made = maps(torch.float64, 0), [x.requires_grad_() for x in maps(torch.float64, 1)]
    assert torch.autograd.gradcheck(lambda *x: _FeatureDistance.apply(reals, *x), made)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_least_squares_over_lists(dtype, monkeypatch):
    def computed() -> list[torch.Tensor]:
        reals, made = ([x.requires_grad_() for x in maps(dtype, seed)] for seed in (0, 1))
        total, each_r, each_g = discriminator_loss(reals, made)
        of_g, each = generator_loss(made)
        (3 * total + of_g).backward()
        return [total, *each_r, *each_g, of_g, *each, *(x.grad for x in (*reals, *made))]

    single = computed()
    monkeypatch.setattr(support, "joined", lambda x: True)
    for one, other in zip(computed(), single, strict=True):
        torch.testing.assert_close(one, other)
