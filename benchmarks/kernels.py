"""What a GPU does in a call: its kernels by name and by operator, as torch's profiler saw them."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

NO_KERNELS = ("Memcpy", "Memset")
SHOWN = 60  # rows of a list
LETTERS = 150  # of a kernel's name, which its template's arguments make long


def busy(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Return how long a GPU takes over a call, and how long the host takes to hand it out.

    Returns:
        Seconds: `issued_s` until the call returns, which may wait for the GPU, and `done_s`.
    """
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    issued = time.perf_counter() - began
    torch.cuda.synchronize(device)
    return {"issued_s": issued, "done_s": time.perf_counter() - began}


def kernels_of(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Profile a call on a GPU.

    Returns:
        `profiled`: kernels. `kernel_s`: their seconds. `copies`: copies and fills of memory.
        `by_kernel`: [name, launches, milliseconds], the longest first. `by_operator`: [operator,
        calls, kernels, milliseconds], the most kernels first.
    """
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize(device)
    launches, lasted, copies = Counter[str](), Counter[str](), 0
    calls, launched, took = Counter[str](), Counter[str](), Counter[str]()
    for event in seen.events():
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            if event.name.startswith(NO_KERNELS):
                copies += 1
            else:
                launches[event.name] += 1
                lasted[event.name] += event.time_range.elapsed_us()
        elif event.kernels:
            own = [each for each in event.kernels if not each.name.startswith(NO_KERNELS)]
            calls[event.name] += 1
            launched[event.name] += len(own)
            took[event.name] += sum(each.duration for each in own)
    return {
        "profiled": launches.total(),
        "kernel_s": 1e-6 * lasted.total(),
        "copies": copies,
        "by_kernel": [
            [name[:LETTERS], launches[name], 1e-3 * us] for name, us in lasted.most_common(SHOWN)
        ],
        "by_operator": [
            [name, calls[name], count, 1e-3 * took[name]]
            for name, count in launched.most_common(SHOWN)
        ],
    }
