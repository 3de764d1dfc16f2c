"""Floating-point operations of a training step, and what share of the device's best they are."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

from trainable.compiling import not_compiled
from trainable.config import TrainConfig
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


def attainable(device: torch.device, precision: str) -> float:
    """Return FLOP/s of the fastest dense operation, with this process's threads.

    That is a product of square matrices. On a CPU it may be a convolution: another library computes
    it, and MKL's products leave AVX-512 unused on an AMD.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    found = 2 * size**3 / _shortest(lambda: torch.matmul(a, b), device)
    if device.type == "cpu":
        image = torch.randn(1, 256, 32, 32).to(dtype)
        weight = torch.randn(256, 256, 3, 3).to(dtype)
        operations = 2 * weight.numel() * image[0, 0].numel()
        convolved = _shortest(lambda: torch.conv2d(image, weight, padding=1), device)
        found = max(found, operations / convolved)
    return found


def _shortest(work: Callable[[], Tensor], device: torch.device) -> float:
    """Return the seconds of the fastest of several calls."""
    clock = seconds(device)
    found = float("inf")
    for _ in range(8):
        begin = clock()
        work()
        found = min(found, clock() - begin)
    return found


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


class Utilisation:
    """Measures which share of the device's best a rank's steps reach (`train.measure_mfu`).

    As in Chowdhery et al. (PaLM, 2022, appendix B), but forward passes that are run again to save
    memory count here. The operations are counted in one step, and are taken to grow with its
    frames. The best is the data sheet's, or that of `attainable` where there is none.

    Args:
        train: `measure_mfu`, `precision`, `compile`.
        device: where the rank computes.
    """

    def __init__(self, train: TrainConfig, device: torch.device):
        self.train = train
        self.per_frame: float | None = None
        if train.measure_mfu:
            self.best = peak(device, train.precision) or attainable(device, train.precision)

    @contextmanager
    def counting(self, frames: int, changed: bool = False) -> Iterator[None]:
        """Count the operations of a step, if that is wanted and none was counted.

        Args:
            frames: frames that the rank computes in it, padding included.
            changed: whether steps compute something else from here on, so that one counts again.
        """
        if not self.train.measure_mfu or (self.per_frame is not None and not changed):
            yield
            return
        # what is compiled shows no operations
        counter = FlopCounterMode(display=False, custom_mapping=CORRECTED)
        with not_compiled(self.train), counter:
            yield
        self.per_frame = counter.get_total_flops() / frames

    def of(self, frames: int, seconds: float) -> dict[str, float]:
        """Return `mfu`, the share that a step has reached; nothing where it is not measured."""
        if self.per_frame is None:
            return {}
        return {"mfu": self.per_frame * frames / seconds / self.best}
