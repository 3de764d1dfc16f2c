"""Activation checkpointing (Chen et al., 2016, arXiv:1604.06174): less memory, the same bits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
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
    buffers = list(module.buffers())
    call = _with_buffers_as_now(module, buffers) if buffers else module
    return checkpoint(call, *args, use_reentrant=False)


def _with_buffers_as_now(module: nn.Module, buffers: list[Tensor]) -> Callable[..., Any]:
    """Return a call of a module that changes its buffers once, however often it is computed.

    Spectral norm takes a step of its power iteration at each call: computed again behind it, the
    weights would be others than those of the forward pass.
    """
    before = [buffer.clone() for buffer in buffers]
    is_first = True

    def call(*args: Any) -> Any:
        nonlocal is_first
        if is_first:
            is_first = False
            return module(*args)
        after = [buffer.clone() for buffer in buffers]
        _set(buffers, before)
        try:
            return module(*args)
        finally:  # which checkpoint leaves as soon as it has all that it needs
            _set(buffers, after)

    return call


@torch.no_grad()
def _set(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
