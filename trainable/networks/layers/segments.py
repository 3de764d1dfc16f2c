"""Masks, segments and paths over padded sequences.

Names as in VITS (Kim et al., 2021, arXiv:2106.06103): B batch, T_x text tokens, T_y spectrogram
frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sequence_mask(lengths: Tensor, max_length: int | None = None) -> Tensor:
    """Mark the positions inside each sequence.

    Args:
        lengths: [B] int64.
        max_length: width of the mask; None takes the longest (this waits for the device).

    Returns:
        [B, max_length] bool, True where position < length.
    """
    if max_length is None:
        max_length = int(lengths.max())
    positions = torch.arange(max_length, dtype=lengths.dtype, device=lengths.device)
    return positions.unsqueeze(0) < lengths.unsqueeze(1)


def slice_segments(x: Tensor, ids_str: Tensor, segment_size: int) -> Tensor:
    """Cut one segment of equal length out of every item.

    Args:
        x: [B, C, T].
        ids_str: [B] int64, first position of each segment.
        segment_size: length of a segment, in positions of x.

    Returns:
        [B, C, segment_size].
    """
    if x.size(2) < segment_size:
        raise ValueError(
            f"segment_size is {segment_size}, but the batch has only {x.size(2)} positions"
        )
    positions = ids_str.unsqueeze(1) + torch.arange(segment_size, device=x.device)
    return x.gather(2, positions.unsqueeze(1).expand(-1, x.size(1), -1))


def rand_slice_segments(x: Tensor, x_lengths: Tensor, segment_size: int) -> tuple[Tensor, Tensor]:
    """Cut a random segment out of every item (windowed generator training, VITS section 2.4).

    An item shorter than the segment is cut from its beginning, and its padding with it.

    Args:
        x: [B, C, T].
        x_lengths: [B] int64.
        segment_size: length of a segment, in positions of x.

    Returns:
        The segments [B, C, segment_size] and their first positions [B] int64.
    """
    starts = (x_lengths - segment_size + 1).clamp_min(1)
    ids_str = (torch.rand([x.size(0)], device=x.device) * starts).to(torch.long)
    return slice_segments(x, ids_str, segment_size), ids_str


def generate_path(duration: Tensor, mask: Tensor) -> Tensor:
    """Lay out durations as a monotonic alignment.

    Args:
        duration: [B, 1, T_x] whole numbers of frames.
        mask: [B, 1, T_y, T_x].

    Returns:
        [B, 1, T_y, T_x], 1 where frame y belongs to token x, in the type of mask.
    """
    ends = duration.cumsum(-1).unsqueeze(2)  # [B, 1, 1, T_x]
    starts = F.pad(ends, (1, 0))[..., :-1]
    frames = torch.arange(mask.size(2), device=mask.device, dtype=duration.dtype)
    frames = frames.unsqueeze(1)  # [T_y, 1]
    return ((frames >= starts) & (frames < ends)).to(mask.dtype) * mask
