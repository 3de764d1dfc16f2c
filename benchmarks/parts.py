"""Where a training step's seconds or floating-point operations go; what the machine could do."""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

from trainable.learning.step import TrainingStep
from trainable.networks.kernels import lstm

# dense FLOP/s from the makers' data sheets: fp32, TF32, and bf16 with fp32 sums
PEAKS = {
    "A100": (19.5e12, 156e12, 312e12),
    "H100": (67e12, 494e12, 989e12),
    "H200": (67e12, 494e12, 989e12),
    "4090": (82.6e12, 82.6e12, 165e12),
    "3090": (35.6e12, 35.6e12, 71e12),
    "L40S": (91.6e12, 183e12, 362e12),
    "L4": (30.3e12, 60e12, 121e12),
}

TORCH_FORMULA: Any = conv_backward_flop


class Parts:
    """Shares of a running total among named parts; an inner part's share is not the outer one's.

    Args:
        read: returns the running total: seconds, or operations.
    """

    def __init__(self, read: Callable[[], float]):
        self.read = read
        self.mark = read()
        self.names = ["other"]  # the parts that are open, the innermost last
        self.totals = defaultdict[str, float](float)

    def _charge(self) -> None:
        now = self.read()
        self.totals[self.names[-1]] += now - self.mark
        self.mark = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge what happens inside to a part."""
        self._charge()
        self.names.append(name)
        yield
        self._charge()
        self.names.pop()

    def watched(self, call: Callable, name: str) -> Callable:
        """Return the function with its calls charged to a part."""

        @wraps(call)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return inner


class KeptForBackward:
    """Counts the bytes that graphs keep for their backward passes, and the most at once.

    The networks' weights do not count. What a checkpointed part computes again counts while that
    part's backward pass needs it.

    Args:
        weights: weights of the networks.
    """

    def __init__(self, weights: Iterable[Tensor]):
        self.weights = {w.untyped_storage().data_ptr() for w in weights}
        self.holders: Counter[int] = Counter()  # storage -> graphs that hold it
        self.now = 0
        self.most = 0

    def watch(self) -> saved_tensors_hooks:
        """Return a context: what is saved inside counts until its graph releases it."""
        return saved_tensors_hooks(self._keep, lambda kept: kept[0])

    def _keep(self, tensor: Tensor) -> tuple[Tensor, "_Holder"]:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        size = storage.nbytes()
        if key in self.weights:
            size = 0
        elif not self.holders[key]:
            self.now += size
            self.most = max(self.most, self.now)
        self.holders[key] += 1
        return tensor, _Holder(partial(self._let_go, key, size))

    def _let_go(self, key: int, size: int) -> None:
        self.holders[key] -= 1
        if not self.holders[key]:
            self.now -= size


class _Holder:
    """Calls a function when it is dropped."""

    def __init__(self, dropped: Callable[[], None]):
        self.dropped = dropped

    def __del__(self) -> None:
        self.dropped()


class PartedBackward:
    """Backward passes of the discriminators' losses one by one, each charged to its own part."""

    def __init__(self, parts: Parts, step: TrainingStep):
        self.parts = parts
        self.original = step.backward

    def __call__(self, totals: Mapping[str, Tensor]) -> None:
        """Run the backward passes; see `TrainingStep.backward`."""
        for name, total in totals.items():
            with self.parts.part("G backward" if name == "g" else f"{name.upper()} backward"):
                self.original({name: total})


@contextmanager
def in_parts(step: TrainingStep, read: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Split what `read` counts while `step` runs; the dictionary is filled at the end."""
    parts = Parts(read)
    shares = dict[str, float]()
    with ExitStack() as stack:
        for owner, method, name in watched_calls(step):
            call = parts.watched(getattr(owner, method), name)
            stack.enter_context(patch.object(owner, method, call))
        stack.enter_context(patch.object(step, "backward", PartedBackward(parts, step)))
        with parts.part("other"):
            yield shares
    shares |= {name: total for name, total in parts.totals.items() if total}


def called(module: Any) -> str:
    """Return the attribute of a module that each call goes through, outside what is compiled."""
    return "forward" if module._compiled_call_impl is None else "_compiled_call_impl"


def watched_calls(step: TrainingStep) -> list[tuple[Any, str, str]]:
    """Return owner, method and part of each call that is charged."""
    nets = step.state.nets
    g = nets["g"]
    watched: list[tuple[Any, str, str]] = [
        (getattr(g, name), called(getattr(g, name)), f"G forward: {name}")
        for name in ("enc_p", "enc_q", "flow", "sdp", "dp", "dec")
    ]
    if "dur" in nets:
        watched.append((nets["dur"], "judge", "DUR forward"))
    return [
        *watched,
        (nets["d"], "discriminate", "D forward"),
        (nets["wd"], "forward", "WD forward"),
        (g, "forward", "G forward: rest"),
        (g, "_align", "alignment"),
        (step.state.slm, "forward", "WavLM forward"),
        (step, "real_segment", "real segment"),
        (step, "generator_losses", "generator's losses"),
        (step, "update", "optimizers"),
        (step, "gathered_report", "report"),
    ]


def seconds(device: torch.device) -> Callable[[], float]:
    """Return a clock that waits for the device."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return read


def _convolution_backward(*args: Any, out_shape: Any) -> int:
    """Return the FLOPs of a convolution's backward pass, from shapes.

    Torch's own formula forgets the groups in the weight's gradient.
    """
    *rest, groups, (of_input, of_weight, _) = args
    inputs = TORCH_FORMULA(*rest, groups, (of_input, False, False), out_val=out_shape)
    weights = TORCH_FORMULA(*rest, groups, (False, of_weight, False), out_val=out_shape)
    return inputs + weights // groups


def _lstm_layer(x: Any, w_ih: Any, w_hh: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Return FLOPs of one direction of an LSTM: [T, B, in] times [4 h, in] and [4 h, h]."""
    return 2 * x[0] * x[1] * (w_ih[0] * w_ih[1] + w_hh[0] * w_hh[1])


def _lstm_layer_backward(x: Any, *weights: Any, out_shape: Any, **kwargs: Any) -> int:
    return 2 * _lstm_layer(x, *weights, out_shape=out_shape)


def _cudnn_lstm(x: Any, weights: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Return FLOPs of all layers and directions of an LSTM on a GPU: each matrix, T * B times."""
    return 2 * x[0] * x[1] * sum(w[0] * w[1] for w in weights if len(w) == 2)


def _cudnn_lstm_backward(x: Any, weights: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return 2 * _cudnn_lstm(x, weights, out_shape=out_shape)


def _recurrence(gates: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Return FLOPs of our LSTM operator: [2, 4 h, h] times a state per row and time [B, T, ...]."""
    ways, rows, width = weight
    return 2 * gates[0] * gates[1] * ways * rows * width


def _recurrence_backward(to: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return _recurrence(to, weight, out_shape=out_shape)


CORRECTED = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten.mkldnn_rnn_layer: _lstm_layer,
    torch.ops.aten.mkldnn_rnn_layer_backward: _lstm_layer_backward,
    torch.ops.aten._cudnn_rnn: _cudnn_lstm,
    torch.ops.aten._cudnn_rnn_backward: _cudnn_lstm_backward,
    # beside these, our operator's products with inputs and of gradients are matrix products
    lstm.FORWARD._overloadpacket: _recurrence,  # type: ignore[attr-defined]
    lstm.BACKWARD._overloadpacket: _recurrence_backward,  # type: ignore[attr-defined]
}


class FlopCount:
    """Counts floating-point operations, a multiply-add as two, while it is entered.

    Attributes:
        torch: count by torch.utils.flop_counter, whose formulas take the weight gradient of a
            grouped convolution for one without groups, and leave out LSTMs; the reference's figures
            were counted in this way.
        corrected: count with both corrected.
    """

    def __init__(self) -> None:
        self.torch = FlopCounterMode(display=False)
        self.corrected = FlopCounterMode(display=False, custom_mapping=CORRECTED)

    def __enter__(self) -> "FlopCount":
        self.torch.__enter__()
        self.corrected.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.corrected.__exit__(*args)
        self.torch.__exit__(*args)


def attainable(device: torch.device, precision: str) -> float:
    """Return FLOP/s of square matrix products, the best of several, with this process's threads."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    clock = seconds(device)
    best = float("inf")
    for _ in range(8):
        begin = clock()
        torch.matmul(a, b)
        best = min(best, clock() - begin)
    return 2 * size**3 / best


def peak(device: torch.device, precision: str) -> float | None:
    """Return FLOP/s from the data sheet of a GPU; None for those not known here, and for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    full, tf32, half = next(
        (figures for key, figures in PEAKS.items() if re.search(rf"\b{key}\b", name)),
        (None, None, None),
    )
    if precision != "fp32":
        return half
    return full if torch.get_float32_matmul_precision() == "highest" else tf32
