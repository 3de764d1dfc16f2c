"""Networks with and without the wrapper that synchronises their gradients."""

from torch import nn


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network itself: with one worker, prepare_model adds no wrapper."""
    return getattr(net, "module", net)
