"""The Triton kernel of the alignment search finds torch's paths, ties included."""

import pytest
import torch
from torch import Tensor

from trainable.networks.generator.alignment import maximum_path, path_in_torch

search = pytest.importorskip("trainable.networks.kernels.alignment_triton").search
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inside(frames: Tensor, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask of items [B, T_y, T_x] with so many frames and tokens each."""
    rows, columns = (torch.arange(n, device=frames.device) for n in size)
    return (rows < frames[:, None])[:, :, None] & (columns < tokens[:, None])[:, None]


@pytest.mark.parametrize("rounded", [False, True], ids=["", "ties"])
@pytest.mark.parametrize(
    ("size", "seed"), [((1, 1), 0), ((1, 5), 0), ((7, 1), 0), ((20, 9), 1), ((33, 16), 2)]
)
def test_random_batches(size, seed, rounded):
    g = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(4, *size, generator=g).to(DEVICE)
    scores = scores.round() if rounded else scores
    frames, tokens = (torch.randint(1, n + 1, (4,), generator=g).to(DEVICE) for n in size)
    mask = inside(frames, tokens, size).float()
    path = search(scores, mask)
    assert torch.equal(path, path_in_torch(scores, mask))
    assert torch.equal(path, maximum_path(scores, mask))
    assert torch.equal(path.sum(2), mask[:, :, 0])


def test_more_tokens_than_frames_and_none():
    mask = inside(torch.tensor([3, 0, 5]), torch.tensor([8, 4, 5]), (6, 8)).float().to(DEVICE)
    scores = torch.randn(mask.shape, device=DEVICE)
    path = search(scores, mask)
    assert torch.equal(path, path_in_torch(scores, mask))
    assert path[0, :3, 7].all()
    assert not path[1].any()
    assert torch.equal(path[2, :5, :5], torch.eye(5, device=DEVICE))


def test_layouts_and_types():
    mask = inside(torch.tensor([9, 4]), torch.tensor([5, 2]), (9, 5)).to(DEVICE)
    scores = torch.randn(2, 5, 9, device=DEVICE).transpose(1, 2)
    for dtype in (torch.float64, torch.bfloat16):
        path = search(scores.to(dtype), mask)
        assert path.dtype == dtype
        assert torch.equal(path, path_in_torch(scores.to(dtype), mask))
