"""The reference's buckets: as it shuffles them, and as an epoch plan."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan.buckets import bucket_batches, plan_buckets


def test_buckets_are_filled_and_what_lies_outside_is_named():
    rng = np.random.default_rng(3)
    frames = np.maximum(1, 400 * np.exp(0.5 * rng.standard_normal(300))).astype(np.int64)
    boundaries = (32, 300, 500, 900)
    plan = plan_buckets(
        np.arange(300),
        frames,
        seed=0,
        epoch=2,
        micro_batches_per_step=3,
        batch_size=4,
        boundaries=boundaries,
    )
    slots = [(step, slot) for step in range(plan.steps) for slot in range(3)]
    made = [plan.micro_batch(*place).tolist() for place in slots]
    assert {len(b) for b in made} == {4}
    assert set(plan.left_out) == {i for i, n in enumerate(frames) if not 32 < n <= 900}
    assert {i for b in made for i in b} | set(plan.left_out.tolist()) == set(range(300))
    settings = {
        "seed": 0,
        "epoch": 0,
        "micro_batches_per_step": 1,
        "batch_size": 4,
        "boundaries": boundaries,
    }
    with pytest.raises(ValueError, match="bucket_boundaries"):
        plan_buckets(np.arange(2), np.array([1, 2]), **settings)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 300), epoch=st.integers(0, 2**31))
def test_one_bucket_is_shuffled_as_torch_does(n, epoch):
    generator = torch.Generator().manual_seed(epoch)
    expected = torch.randperm(n, generator=generator).tolist()
    order = torch.randperm(n, generator=generator).tolist()
    assert bucket_batches([5] * n, 1, [0, 10], epoch=epoch) == [[expected[i]] for i in order]
