"""Single operators of a step beside torch's own, both passes: a stage of benchmarks.gpu."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.kernels import kernels_of
from trainable.networks.kernels.convolutions.grouped import grouped_conv1d
from trainable.networks.kernels.lstm import read_both_ways

Found = dict[str, dict[str, Any]]
Make = Callable[..., Tensor]  # draws a tensor of a size
Calls = dict[str, Callable[[], Any]]
CALLS = 10
# DiscriminatorS' convolutions in groups: channels in and out, groups, frames of 16,384 samples
GROUPED = ((16, 64, 4, 16384), (64, 256, 16, 4096), (256, 1024, 64, 1024), (1024, 1024, 256, 256))
TAPS, STRIDE = 41, 4
LSTM = (512, 192)  # width of the input, hidden channels


def timed(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Return the median seconds of a call, and on a GPU its kernels and their seconds."""
    for _ in range(2):  # plans and Triton's kernels are made
        call()
    lasted = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        lasted.append(time.perf_counter() - began)
    found: dict[str, Any] = {"seconds": median(lasted)}
    if device.type != "cuda":
        return found
    seen = kernels_of(call, device)
    return found | {"kernels": seen["profiled"], "kernel_s": seen["kernel_s"]}


def both_passes(call: Callable[..., Tensor], *given: Tensor) -> Callable[[], Any]:
    """Return a call and its backward pass, to all that it is given and that takes a gradient."""
    to = torch.randn_like(call(*given))
    wanted = [each for each in given if each.requires_grad]
    return lambda: torch.autograd.grad(call(*given), wanted, to)


def channels_last(x: Tensor) -> Tensor:
    """Return [B, C, T] with its channels last in memory."""
    return x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()


def pieces(device: torch.device, utterances: int, frames: int) -> Found:
    """Time the operators.

    Args:
        device: device that computes.
        utterances: of a micro-batch.
        frames: of each utterance.
    """
    calls = lstms(device, 4 * utterances, int(0.6 * frames) + 1)
    for dtype in (torch.float32, torch.bfloat16):
        made = partial(torch.randn, device=device, dtype=dtype, requires_grad=True)
        own = in_groups(made, 2 * utterances, frames) | layouts(made, utterances, frames)
        calls |= {
            f"{str(dtype).removeprefix('torch.')}: {name}": call for name, call in own.items()
        }
    return {name: timed(call, device) for name, call in calls.items()}


def in_groups(made: Make, readings: int, frames: int) -> Calls:
    """Return DiscriminatorS' convolutions in groups, of twice as many readings as utterances."""
    calls = {}
    for n_in, n_out, groups, length in GROUPED:
        x = made((readings, n_in, length * frames // 400))
        weight = made((n_out, n_in // groups, TAPS))
        name = f"{n_in} to {n_out} channels in {groups} groups"
        theirs = partial(F.conv1d, stride=STRIDE, padding=TAPS // 2, groups=groups)
        ours = partial(grouped_conv1d, stride=STRIDE, padding=TAPS // 2, groups=groups)
        calls[f"{name}, torch"] = both_passes(theirs, x, weight)
        calls[f"{name}, ours"] = both_passes(ours, x, weight)
    return calls


def layouts(made: Make, utterances: int, frames: int) -> Calls:
    """Return the convolution of a WaveNet's layer in both layouts."""
    x, weight = made((utterances, 192, frames)), made((384, 192, 5))
    return {
        "a WaveNet layer's convolution": both_passes(partial(F.conv1d, padding=2), x, weight),
        "the same, channels last": both_passes(
            lambda x, w: F.conv2d(x.unsqueeze(2), w.unsqueeze(2), padding=(0, 2)).squeeze(2),
            channels_last(x),
            channels_last(weight),
        ),
    }


def lstms(device: torch.device, readings: int, tokens: int) -> Calls:
    """Return the duration discriminator's LSTM, of four times as many readings as utterances."""
    lstm = nn.LSTM(*LSTM, batch_first=True, bidirectional=True).to(device)
    x = torch.randn(readings, tokens, LSTM[0], device=device, requires_grad=True)
    weights = list(lstm.parameters())
    return {
        "LSTM, torch": both_passes(lambda x, *_: lstm(x)[0], x, *weights),
        "LSTM, ours": both_passes(lambda x, *_: read_both_ways(lstm, x), x, *weights),
    }
