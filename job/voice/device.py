"""Which weights speak, where, and as whom: options that commands share."""

import argparse
import re

import torch

from data.gpu import gpu_trouble
from trainable.config import GENERATORS


def add_weights(made: argparse.ArgumentParser) -> None:
    """Add the option --weights."""
    made.add_argument(
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the generator's averaged ones (train.ema_decay)",
    )


def add_reference(made: argparse.ArgumentParser) -> None:
    """Add the option --reference."""
    made.add_argument(
        "--reference", help="a recording of the speaker, for a voice without a speaker table"
    )


def add_device(made: argparse.ArgumentParser) -> None:
    """Add the option --device, which `device_of` checks."""
    made.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the networks run: cpu, cuda, cuda:1",
    )


def device_of(name: str) -> str:
    """Return a device by its name.

    Raises:
        ValueError: there is no such device on this machine; names the option.
    """
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
