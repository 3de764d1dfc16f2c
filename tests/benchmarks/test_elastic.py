"""What the reductions do to an update, beside gradients that are averaged in float64."""

import pytest
import torch

from benchmarks.reductions import averaged, update_errors
from tests.tiny import tiny_batch, tiny_config

G = 3


@pytest.mark.medium
def test_exact_updates_are_near_those_of_float64():
    cfg = tiny_config(micro_batches_per_step=G)
    steps = [[(j, tiny_batch(cfg, 10 * i + j)) for j in range(G)] for i in range(2)]
    means = averaged(cfg, steps)
    exact, double = (torch.stack(means[kind]) for kind in ("exact", "float64"))
    error = float((exact - double).norm() / double.norm())
    assert 0 < error < 2e-7

    found = update_errors(cfg, steps)
    assert found.keys() == {"exact", "fast", "fast_bf16"}
    assert 0 < found["fast"] < 2e-7
    # some gradients are all but nothing, others on every make of CPU, and AdamW takes them whole
    assert 0 < found["exact"] < 1e-5
    assert 1e-4 < found["fast_bf16"] < 0.1
