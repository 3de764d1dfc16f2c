"""Convolutions of many channels in float64, in one product of matrices each.

Torch's own, on a CPU, reads all weights again for each utterance: that takes four times as long.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
LARGE = 2**16  # weights from which on it pays
Sizes = Sequence[int]  # one per dimension of a signal


class InOneProduct(TorchDispatchMode):
    """Computes large convolutions and their gradients so, while it is entered."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is aten.convolution.default and fits(args[1], args[6], args[8]):
            return forward(*args[:6])
        if func is aten.convolution_backward.default and fits(args[2], args[7], args[9]):
            return backward(*args[:3], *args[4:7], wanted=args[10])
        return func(*args, **(kwargs or {}))


def fits(weight: Tensor, transposed: bool, groups: int) -> bool:
    return (
        weight.dtype == torch.float64 and weight.numel() >= LARGE and groups == 1 and not transposed
    )


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """The output, [B, O, ...]."""
    seen = columns(padded(x, padding), weight, stride, dilation)
    out = torch.tensordot(weight.flatten(1), seen.flatten(0, 1), 1).transpose(0, 1).contiguous()
    return out if bias is None else out.add_(bias.view(-1, *[1] * len(stride)))


def backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, weight and bias, where wanted."""
    of_x = of_weight = None
    by_channel = gradient.transpose(0, 1).flatten(1)
    room = padded(x, padding)
    if wanted[0]:
        of_seen = (weight.flatten(1).t() @ by_channel).unflatten(0, weight.shape[1:])
        of_seen = of_seen.flatten(1, -2).unflatten(-1, (len(x), *gradient.shape[2:]))
        of_room = torch.zeros_like(room)
        for number, tap in enumerate(taps(of_room, weight, stride, dilation)):
            tap += of_seen[:, number].transpose(0, 1)
        inside = (slice(at, at + size) for at, size in zip(padding, x.shape[2:], strict=True))
        of_x = of_room[(..., *inside)]
    if wanted[1]:
        seen = columns(room, weight, stride, dilation)
        of_weight = (by_channel @ seen.flatten(0, 1).flatten(1).t()).view_as(weight)
    return of_x, of_weight, by_channel.sum(1) if wanted[2] else None


def padded(x: Tensor, padding: Sizes) -> Tensor:
    return functional.pad(x, [size for size in reversed(padding) for _ in range(2)])


def columns(room: Tensor, weight: Tensor, stride: Sizes, dilation: Sizes) -> Tensor:
    """What each weight of a filter is multiplied with, [C, weights of a channel, B, ...]."""
    seen = [tap.transpose(0, 1) for tap in taps(room, weight, stride, dilation)]
    return torch.stack(seen, 1)


def taps(room: Tensor, weight: Tensor, stride: Sizes, dilation: Sizes) -> Iterator[Tensor]:
    """Yield views of a padded input: what each weight of a channel's filter sees, [B, C, ...]."""
    kernel = weight.shape[2:]
    for offsets in itertools.product(*map(range, kernel)):
        spans = []
        for at, size, step, apart, length in zip(
            offsets, kernel, stride, dilation, room.shape[2:], strict=True
        ):
            begin = at * apart
            spans.append(slice(begin, length - (size - 1) * apart + begin, step))
        yield room[(..., *spans)]
