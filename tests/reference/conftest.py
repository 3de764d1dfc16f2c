"""Settings under which the reference numbers hold."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The tests of a second set make one and run all the tests on it: not again where a set is given.
collect_ignore = ["test_second_set.py"] if os.environ.get("REFERENCE_DIR") else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests over nothing, as of absent GPUs: pytest would call them skipped."""
    items[:] = [
        item
        for item in items
        if item.path.parent != Path(__file__).parent
        or not any(
            str(mark.kwargs.get("reason")).startswith("got empty")
            for mark in item.iter_markers("skip")
        )
    ]


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Full fp32 products, as measured; one thread, as small networks do not gain from more."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)
