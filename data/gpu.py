"""Whether torch can compute on the GPUs that a process is given.

torch is imported where it is used, because most processes of a preparation need none.
"""

import re
from collections.abc import Sequence

BF16_CAPABILITY = (8, 0)  # Ampere: older GPUs imitate bf16, many times slower than fp32
HIDE = "take GPUs that cannot be used out of CUDA_VISIBLE_DEVICES"


def gpu_trouble(precision: str = "fp32") -> str:
    """Return why torch cannot compute on the GPUs of this process, in one line; "" if it can.

    Args:
        precision: what is computed in, as train.precision.
    """
    import torch

    if not torch.cuda.is_available():
        return "torch sees none (" + _why_none() + ")"
    if torch.version.hip:
        return ""
    built_for = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        name = f"{torch.cuda.get_device_name(index)} has compute capability "
        name += ".".join(map(str, capability))
        if not runs_on(built_for, capability):
            known = ", ".join(built_for)
            return f"{name}, and this torch has code for {known}: use a newer GPU, or {HIDE}"
        if precision == "bf16" and capability < BF16_CAPABILITY:
            return f"{name}, and train.precision bf16 needs 8.0 or newer: use fp16 or fp32"
    return ""


def _why_none() -> str:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for CPUs: install it as locked"
    return (
        "give the container its GPUs: --gpus all, nvidia's runtime; "
        f"and CUDA {torch.version.cuda} a driver that is new enough"
    )


def runs_on(built_for: list[str], capability: tuple[int, int]) -> bool:
    """Tell whether one of the architectures that code was compiled for runs on a GPU.

    Machine code (sm_86) runs on the same major version from its minor on, intermediate code
    (compute_86) on every newer GPU, and what is specific (sm_90a) on that one alone (NVIDIA's CUDA
    programming guide, section on application compatibility).

    Args:
        built_for: as torch.cuda.get_arch_list returns them.
        capability: major and minor version of the GPU.
    """
    found = (re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", each) for each in built_for)
    return any(_covers(match.groups(), capability) for match in found if match)


def _covers(architecture: Sequence[str], capability: tuple[int, int]) -> bool:
    kind, major, minor, special = architecture
    own = (int(major), int(minor))
    if special == "a":
        return own == capability
    if kind == "compute" and not special:
        return own <= capability
    return own[0] == capability[0] and own[1] <= capability[1]
