"""The Triton kernel of `trainable.networks.generator.alignment`, an utterance per program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

UNREACHABLE = tl.constexpr(-1e9)


@triton.jit
def _search(
    neg_cent_ptr,
    mask_ptr,
    moved_ptr,
    path_ptr,
    T_y,
    T_x,
    n_b,
    n_y,
    n_x,
    m_b,
    m_y,
    m_x,
    FRAMES: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Go through the frames forwards with the scores of all tokens, and back along the moves."""
    item = tl.program_id(0).to(tl.int64)
    x = tl.arange(0, TOKENS)
    every = tl.arange(0, FRAMES)
    mask_ptr += item * m_b
    frames = tl.sum(
        (tl.load(mask_ptr + every * m_y, mask=every < T_y, other=0.0) != 0).to(tl.int32), 0
    )
    tokens = tl.sum((tl.load(mask_ptr + x * m_x, mask=x < T_x, other=0.0) != 0).to(tl.int32), 0)

    neg_cent_ptr += item * n_b
    moved_ptr += item * T_y * T_x
    before = tl.maximum(x - 1, 0)
    scores = tl.full([TOKENS], UNREACHABLE, tl.float32)
    y = 0
    while y < frames:
        gain = tl.load(neg_cent_ptr + y * n_y + x * n_x, mask=(x <= y) & (x < T_x), other=0.0)
        shifted = tl.where(x == 0, UNREACHABLE, tl.gather(scores, before, 0))
        moved = (x > 0) & ((scores < shifted) | (x == y))
        tl.store(moved_ptr + y * T_x + x, moved.to(tl.int8), mask=x < T_x)
        if y == 0:
            scores = tl.where(x == 0, gain.to(tl.float32), UNREACHABLE)
        else:
            scores = tl.maximum(scores, shifted) + gain.to(tl.float32)
        y += 1

    tl.debug_barrier()  # what other threads have stored is read from here on
    path_ptr += item * T_y * T_x
    at = tl.maximum(tokens - 1, 0)
    y = frames - 1
    while y >= 0:
        tl.store(path_ptr + y * T_x + at, 1.0)
        at -= tl.load(moved_ptr + y * T_x + at).to(tl.int32)
        y -= 1


def search(neg_cent: Tensor, mask: Tensor) -> Tensor:
    """Compute `alignment.maximum_path`."""
    B, T_y, T_x = neg_cent.shape
    moved = torch.empty(neg_cent.shape, dtype=torch.int8, device=neg_cent.device)
    path = torch.zeros(neg_cent.shape, dtype=neg_cent.dtype, device=neg_cent.device)
    _search[(B,)](
        neg_cent,
        mask,
        moved,
        path,
        T_y,
        T_x,
        *neg_cent.stride(),
        *mask.stride(),
        FRAMES=triton.next_power_of_2(T_y),
        TOKENS=triton.next_power_of_2(T_x),
    )
    return path
