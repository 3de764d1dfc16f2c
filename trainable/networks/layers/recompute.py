"""Activation checkpointing (Chen et al., 2016, arXiv:1604.06174): less memory, the same bits."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *args: Any, enabled: bool) -> Any:
    """Call a module; where enabled, its backward pass computes its activations again.

    Args:
        module: module that is called with `args`; its dropout draws the same masks both times.
        args: arguments of the module.
        enabled: whether to do so; False calls the module as it is.
    """
    if not enabled or not torch.is_grad_enabled():
        return module(*args)
    return checkpoint(module, *args, use_reentrant=False)
