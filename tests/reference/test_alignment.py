"""The alignment search finds the reference trainer's paths."""

import pytest
import torch

from tests.reference.goldens import GPUS, REFERENCE
from trainable.networks.generator.alignment import maximum_path

NAME = "maximum_path"
CASES = [f"{case['case']:02d}" for case in REFERENCE.entry(NAME)["cases"]]
DEGENERATE = [
    case["case"] for case in REFERENCE.entry(NAME).get("degenerate_more_text_than_frames", [])
]
DEVICES = ["cpu", *GPUS]


@pytest.fixture(scope="module")
def tensors():
    return REFERENCE.tensors(NAME)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_path(tensors, case, device):
    neg_cent, mask = (
        tensors[f"{case}.neg_cent"].to(device),
        tensors[f"{case}.mask"].float().to(device),
    )
    path = maximum_path(neg_cent, mask)
    assert path.dtype == neg_cent.dtype
    assert torch.equal(path.to(torch.uint8).cpu(), tensors[f"{case}.path"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", DEGENERATE)
def test_more_text_than_frames_goes_to_the_last_token(tensors, case, device):
    """No alignment exists; the manifest asks for no equality, and nothing may break."""
    mask = tensors[f"{case}.mask"].float().to(device)
    path = maximum_path(tensors[f"{case}.neg_cent"].to(device), mask)
    assert torch.equal(path.sum(2), mask[:, :, 0])
    for item, inside in zip(path, mask, strict=True):
        frames, tokens = int(inside[:, 0].sum()), int(inside[0].sum())
        if tokens > frames:
            assert item[:frames, tokens - 1].all()
