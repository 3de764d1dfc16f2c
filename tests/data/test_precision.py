"""What is computed in at least fp32."""

import pytest
import torch

from data.precision import widen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_fp32_at_least(dtype):
    assert widen(torch.ones(2, dtype=dtype)).dtype == torch.float32


def test_nothing_narrows():
    exact = torch.tensor([1 / 3], dtype=torch.float64)
    assert widen(exact) is exact
