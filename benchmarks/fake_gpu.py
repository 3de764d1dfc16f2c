"""A GPU that computes nothing: a training step takes its CUDA branches on a machine without one.

Tensors are torch's fake ones, with shapes, types and strides and no values, and say that they lie
on `cuda`. Three things need a real GPU all the same, and have a stand-in here: torch's engine for
backward passes asks for the device's streams, autocast asks what it can compute, and cuDNN's LSTM
has no fake form.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.function import BackwardCFunction
from transformers import WavLMConfig, WavLMModel

from data.audio import spectrogram
from data.config import DataConfig
from data.stream.collate import TtsBatch
from trainable.config import TrainConfig
from trainable.learning.state import AUTOCAST_TYPES, TrainState, build_networks
from trainable.model_config import ModelConfig
from trainable.networks.layers import weight_norm
from trainable.networks.wavlm import WavLMFeatures

Node = Any  # of an autograd graph
CUDA = torch.device("cuda")
# of a parameter's node, which alone has this attribute
PARAMETER = "variable"
CACHED = (spectrogram._window, spectrogram._mel_basis, weight_norm._starts)


@contextmanager
def fake_gpu(
    visited: Callable[[Node], None] = lambda node: None,
    lstm: Callable[[str, int], None] = lambda direction, launches: None,
) -> Iterator[None]:
    """Make the device `cuda` a fake one, until the block ends.

    Args:
        visited: called with each node of a graph before its backward pass.
        lstm: called with `forward` or `backward` and the launches of an LSTM, which are modelled.
    """

    def backward(losses: Sequence[Tensor], *args: Any, **kwargs: Any) -> None:
        walk_backward(losses, visited)

    def fake_lstm(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return _lstm(lstm, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for owner, name, stand_in in (
            (torch.autograd, "backward", backward),
            (torch._VF, "lstm", fake_lstm),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
            # asks for addresses, which fake weights have none of
            (nn.RNNBase, "flatten_parameters", lambda self: None),
        ):
            stack.enter_context(patch.object(owner, name, stand_in, create=True))
        try:
            yield
        finally:
            for cached in CACHED:
                cached.cache_clear()


def fake(tensor: Tensor, device: torch.device = CUDA) -> Tensor:
    """Return a fake tensor of the same shape, strides and type, by default on the fake GPU."""
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)


def fake_batch(batch: TtsBatch) -> TtsBatch:
    """Return a batch as `TtsBatch.to` leaves it: all on the fake GPU but the rows.

    The host reads these: they are no tensor here, since torch makes all tensors fake ones.
    """
    tensors = {
        field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "rows"
    }
    moved: dict[str, Any] = {
        name: fake(tensor) for name, tensor in tensors.items() if isinstance(tensor, Tensor)
    }
    rows: Any = SimpleNamespace(numpy=lambda: np.arange(batch.x.size(0)))
    return replace(batch, rows=rows, **moved)


def fake_state(
    train: TrainConfig, model: ModelConfig, data: DataConfig, device: torch.device = CUDA
) -> TrainState:
    """Return networks and a WavLM of base-plus size; inside `fake_gpu`, or a fake mode for a CPU.

    Args:
        train: hyper-parameters.
        model: sizes of the networks.
        data: parameters of the STFT.
        device: where they say that they lie.
    """
    with unset_fake_temporarily():
        with torch.device("meta"):  # without values, in no time
            wavlm = WavLMModel(WavLMConfig())
        slm = WavLMFeatures(wavlm, data.sampling_rate)
        with torch.device("meta"):
            nets = build_networks(model, train, data, slm)
        slm.store_as(AUTOCAST_TYPES[train.precision])
    for net in (slm, *nets.values()):
        net._apply(partial(fake, device=device))
    # fake weights cannot change their type in place, and have it already
    with patch.object(slm, "store_as"):
        return TrainState(nets, slm, model, train)


@torch.no_grad()
def walk_backward(losses: Sequence[Tensor], visited: Callable[[Node], None]) -> None:
    """Run a backward pass as torch's engine does, without its threads and streams.

    Hooks of tensors are not called.

    Args:
        losses: [] each.
        visited: called with each node before its backward pass.
    """
    roots: list[Node] = [loss.grad_fn for loss in losses]
    waits = _uses(roots)
    pending: dict[Node, dict[int, Tensor]] = defaultdict(dict)
    for loss in losses:
        pending[loss.grad_fn][loss.output_nr] = torch.ones_like(loss)
    ready = [root for root in roots if not waits[root]]
    while ready:
        node = ready.pop()
        visited(node)
        found = _differentiated(node, pending.pop(node, {}))
        for (following, number), gradient in zip(node.next_functions, found, strict=True):
            if following is None:
                continue
            if gradient is not None:
                _add(pending[following], number, _fitting(gradient, following, number))
            waits[following] -= 1
            if not waits[following]:
                ready.append(following)


def _uses(roots: Sequence[Node]) -> dict[Node, int]:
    """Return how many nodes of the graphs lead to each node."""
    uses: dict[Node, int] = dict.fromkeys(roots, 0)
    stack = list(uses)
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is None:
                continue
            if following not in uses:
                uses[following] = 0
                stack.append(following)
            uses[following] += 1
    return uses


def _differentiated(node: Node, gradients: dict[int, Tensor]) -> Sequence[Tensor | None]:
    """Return the gradients of a node's inputs from those of its outputs, by number."""
    if hasattr(node, PARAMETER):
        if gradients:
            _accumulate(node.variable, gradients[0])
        return ()
    if not gradients:
        return [None] * len(node.next_functions)
    given = [gradients.get(i) for i in range(len(node._input_metadata))]
    if not isinstance(node, BackwardCFunction):
        return _listed(node(*given))
    # written in Python: it answers for arguments that are no tensors, too
    answers = zip(_listed(node.apply(*given)), node.needs_input_grad, strict=True)
    needed = (answer for answer, needs in answers if needs)
    return [None if following is None else next(needed) for following, _ in node.next_functions]


def _listed(found: Any) -> tuple[Tensor | None, ...]:
    return found if isinstance(found, tuple) else (found,)


def _accumulate(weight: Tensor, gradient: Tensor) -> None:
    """Add to `.grad`, as AccumulateGrad: a gradient of another layout is copied."""
    if weight.grad is not None:
        weight.grad.add_(gradient)
    elif gradient.stride() == weight.stride():
        weight.grad = gradient
    else:
        weight.grad = torch.empty_like(weight).copy_(gradient)


def _fitting(gradient: Tensor, node: Node, number: int) -> Tensor:
    """Return a gradient in the shape and type of a node's output, as the engine makes it."""
    wanted = node.variable if hasattr(node, PARAMETER) else node._input_metadata[number]
    if gradient.shape != wanted.shape:
        gradient = gradient.sum_to_size(wanted.shape)
    return gradient if gradient.dtype == wanted.dtype else gradient.to(wanted.dtype)


def _add(gradients: dict[int, Tensor], number: int, gradient: Tensor) -> None:
    gradients[number] = gradients[number] + gradient if number in gradients else gradient


class _Lstm(torch.autograd.Function):
    """Shapes of an LSTM, whose launches are reported: 2 per step and direction, backward 4."""

    @staticmethod
    def forward(
        ctx: Any, launched: Callable, rows: int, size: int, x: Tensor, *weights: Tensor
    ) -> Tensor:
        ctx.inputs = x, *weights
        ctx.launched = launched
        ctx.rows = rows
        launched("forward", 2 * rows)
        return x.new_empty(*x.shape[:-1], size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.launched("backward", 4 * ctx.rows)
        inputs = [torch.empty_like(x) if x.requires_grad else None for x in ctx.inputs]
        return None, None, None, *inputs


def _lstm(
    launched: Callable[[str, int], None], x: Tensor, *args: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Stand in for torch's LSTM, of a padded batch or of packed sequences."""
    packed = isinstance(args[0], Tensor)
    states, weights = args[1:3] if packed else args[:2]
    bidirectional = args[-1] if packed else args[-2]
    batch_first = not packed and args[-1]
    steps = args[0].numel() if packed else x.size(int(batch_first))
    directions = states[0].size(0)  # of all layers
    if torch.is_autocast_enabled("cuda"):
        # cuDNN's takes all weights in one piece: each is cast to its place there
        dtype = torch.get_autocast_dtype("cuda")
        weights = [weight.to(dtype) for weight in weights]
        x, *states = (part.to(dtype) for part in (x, *states))
    size = states[0].size(-1) * (1 + bidirectional)
    out = _Lstm.apply(launched, steps * directions, size, x, *weights)
    return out, states[0], states[1]
