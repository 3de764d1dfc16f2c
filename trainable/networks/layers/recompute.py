"""Activation checkpointing (Chen et al., 2016, arXiv:1604.06174): memory for time, with the same bits."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *args: Any, enabled: bool) -> Any:
    """Calls a module; where enabled, its activations are not kept but computed again in the backward pass.

    Args:
        module: called with `args`; its dropout draws the same masks both times.
        args: its arguments.
        enabled: False calls it as ever.
    """
    if not enabled or not torch.is_grad_enabled():
        return module(*args)
    return checkpoint(module, *args, use_reentrant=False)
