"""Networks with and without the wrapper that synchronises their gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from trainable.config import TrainConfig
from trainable.distributed.collectives import collective, world_size


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network itself: with one worker, prepare_model adds no wrapper."""
    return getattr(net, "module", net)


def ddp_settings(train: TrainConfig) -> dict[str, Any]:
    """Return the arguments of DDP's wrapper."""
    return {
        # the step shares them once, where a network has any (`same_buffers`)
        "broadcast_buffers": False,
        # gradients are views of what is sent, instead of copied back from it
        "gradient_as_bucket_view": True,
        "bucket_cap_mb": train.ddp_bucket_mb,
    }


def sending(net: nn.Module, train: TrainConfig) -> nn.Module:
    """Return a network whose wrapper, if it has one, sends gradients as `train` says."""
    if train.ddp_gradients == "bf16" and isinstance(net, DistributedDataParallel):
        net.register_comm_hook(None, bf16_compress_hook)
    return net


@collective
@torch.no_grad()
def same_weights(net: nn.Module) -> nn.Module:
    """Give a network without wrapper rank 0's weights, as DDP's wrapper would when it is made.

    They follow from the seed alone, but the last bits of their logarithms and roots from the CPU.
    """
    weights = [w for w in net.state_dict().values() if w.is_floating_point()]
    if world_size() == 1 or not weights:
        return net
    together = torch.cat([w.flatten() for w in weights])
    dist.broadcast(together, src=0)
    for weight, own in zip(weights, together.split([w.numel() for w in weights]), strict=True):
        weight.copy_(own.view_as(weight))
    return net


@collective
@torch.no_grad()
def same_buffers(net: nn.Module) -> None:
    """Give a network's buffers rank 0's values.

    Spectral norm changes them with every forward pass, and ranks may have unequal shares of a step.
    """
    if world_size() == 1:
        return
    for buffer in net.buffers():
        dist.broadcast(buffer, src=0)
