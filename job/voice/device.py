"""Where a voice speaks: the option --device of commands."""

import re

import torch

from data.gpu import gpu_trouble
from job.options.voice import AUTO


def device_of(name: str) -> str:
    """Return a device by its name; for AUTO, a GPU where there is one.

    Raises:
        ValueError: there is no such device on this machine; names the option.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    found = re.fullmatch(r"cpu|mps|cuda(?::([0-9]{1,4}))?", name)
    if found is None:
        raise ValueError(f"--device is {name!r}: give cpu, cuda or cuda:N")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device is mps, which this machine does not have: give cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(f"--device is {name}, but torch finds no GPU here: give cpu")
        if int(found[1] or 0) >= count:
            raise ValueError(f"--device is {name}, but there are {count} GPUs, from cuda:0")
        if trouble := gpu_trouble():
            raise ValueError(f"--device is {name}, but {trouble}; or give cpu")
    return name
