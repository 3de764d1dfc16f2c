"""An exponential moving average of the weights, which often speaks better than they do."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class AveragedWeights:
    """a <- d a + (1 - d) w after each step, with d = min(decay, (1 + n) / (10 + n)) after n steps.

    The smaller d of the first steps forgets the random weights of the beginning (Polyak and
    Juditsky 1992; the warm-up is TensorFlow's).
    """

    def __init__(self, net: nn.Module, decay: float):
        """Begin with the present weights.

        Args:
            net: the network, whose weights are averaged after each step.
            decay: d, at least 0 and below 1.
        """
        self.net = net
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again with the present weights."""
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the weights that the network has after a number of steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        averages = list(self.average.values())
        weights = [p.detach() for p in self.net.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the averaged weights for as long as the block lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self.net.named_parameters():
            p.data, self.average[name] = self.average[name], p.data

    def state_dict(self) -> dict[str, Tensor]:
        """Return the network's own state with the averaged weights in it."""
        return {**self.net.state_dict(), **self.average}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, average in self.average.items():
            average.copy_(state[name])
