"""Compile the Triton kernels for GPUs: `python -m tests.trainable.networks.kernels.compiled 90 75`.

Prints, for each of them, the bytes of shared memory that each takes.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trainable.networks.kernels import (
    alignment_triton,
    attention_triton,
    lstm_triton,
    norm_gelu_triton,
    spline_triton,
)
from trainable.networks.kernels.convolutions import bias_triton, gate_triton, weight_norm_triton

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.bool: "*i1",
    torch.int64: "*i64",
}


class Recorder:
    """Stands in for a kernel, and keeps what it is launched with."""

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.launched: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **kwargs: self.launched.append((args, kwargs))


def compiled(kernel: Any, given: Mapping[str, Any], capability: int) -> int:
    """Compile a kernel for its arguments; return the bytes of shared memory that it takes."""
    signature, constants = {}, {}
    for i, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if isinstance(value, Tensor):
            signature[parameter.name] = TYPES[value.dtype]
        elif parameter.is_constexpr or value is None or value == 1:
            signature[parameter.name] = "constexpr"
            constants[(i,)] = value
        else:
            signature[parameter.name] = "i32"
    options = {name: value for name, value in given.items() if name not in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options).metadata.shared


def launches(half: torch.dtype) -> list[tuple[Any, str, Callable[[], Any]]]:
    """Return module, kernel and a call of each launch of the published structure."""
    x, mask, shape = torch.empty(2, 1, 240), torch.empty(2, 1, 240), torch.empty(2, 29, 240)
    x2, weights = torch.empty(2, 192, 240, dtype=half), torch.empty(192)
    gates, states = torch.empty(8, 240, 2, 768, dtype=half), torch.empty(8, 240, 2, 192)
    of_states, opened = torch.empty(2, 768, 192), torch.empty(8, 240, 2, 768)
    spline = [
        call
        for inverse in (False, True)
        for call in (
            (
                "_forward_kernel",
                lambda i=inverse: spline_triton.forward(x, shape.to(half), mask, x, i, 5.0, 13.9),
            ),
            (
                "_backward_kernel",
                lambda i=inverse: spline_triton.backward(
                    x, shape.to(half), mask, x, x, i, 5.0, 13.9, []
                ),
            ),
        )
    ]
    norm = [
        ("_forward_kernel", lambda: norm_gelu_triton.forward(x2, *[weights] * 3, x2, mask, 1e-5)),
        (
            "_backward_kernel",
            lambda: norm_gelu_triton.backward(x2, *[weights] * 3, mask, x2, True, 1e-5, []),
        ),
    ]
    lstm = [
        ("_forward_kernel", lambda: lstm_triton.forward(gates, of_states)),
        (
            "_backward_kernel",
            lambda: lstm_triton.backward(states, of_states, states, states, opened),
        ),
    ]
    scores = torch.empty(2, 400, 241)
    alignment = [("_search", lambda: alignment_triton.search(scores, scores))]
    modules = (
        (alignment_triton, alignment),
        (attention_triton, attention_launches(half)),
        (bias_triton, bias_launches(half)),
        (gate_triton, gate_launches(half)),
        (weight_norm_triton, weight_norm_launches(half)),
        (spline_triton, spline),
        (norm_gelu_triton, norm),
        (lstm_triton, lstm),
    )
    return [(module, name, call) for module, calls in modules for name, call in calls]


def attention_launches(half: torch.dtype) -> list[tuple[str, Callable[[], Any]]]:
    scores = torch.empty(2, 2, 400, 400, dtype=half)
    near = torch.empty(2, 2, 400, 9, dtype=half)
    padding, keep = torch.empty(2, 1, 400).bool(), scores.bool()
    return [
        (
            "_forward_kernel",
            lambda: attention_triton.forward(scores, near, padding, keep, 0.1, 0.1),
        ),
        (
            "_backward_kernel",
            lambda: attention_triton.backward(scores, near, scores, padding, keep, 0.1, 0.1),
        ),
    ]


def bias_launches(half: torch.dtype) -> list[tuple[str, Callable[[], Any]]]:
    x, bias = torch.empty(2, 32, 101, 5, dtype=half), torch.empty(32)
    return [
        ("_forward_kernel", lambda: bias_triton.forward(x, bias, x, 0.1, True)),
        ("_backward_kernel", lambda: bias_triton.backward(x, x, x, 0.1)),
    ]


def gate_launches(half: torch.dtype) -> list[tuple[str, Callable[[], Any]]]:
    x, shift = torch.empty(2, 384, 400, dtype=half), torch.empty(2, 384, dtype=half)
    return [
        ("_forward_kernel", lambda: gate_triton.forward(x, shift)),
        ("_backward_kernel", lambda: gate_triton.backward(x[:, :192], x, shift)),
    ]


def weight_norm_launches(half: torch.dtype) -> list[tuple[str, Callable[[], Any]]]:
    v, g, starts = torch.empty(5120), torch.empty(4), torch.arange(5)
    return [
        ("_forward_kernel", lambda: weight_norm_triton.forward(v, g, starts, half)),
        ("_backward_kernel", lambda: weight_norm_triton.backward(v.to(half), v, g, starts)),
    ]


def main() -> None:
    for capability in map(int, sys.argv[1:]):
        compile_all(capability)


def compile_all(capability: int) -> None:
    half = torch.float32 if capability < 80 else torch.bfloat16
    for number, (module, name, call) in enumerate(launches(half)):
        recorder = Recorder(getattr(module, name))
        with patch.object(module, name, recorder):
            call()
        for args, kwargs in recorder.launched:
            given = dict(zip(recorder.kernel.arg_names, args, strict=False)) | kwargs
            size = compiled(recorder.kernel, given, capability)
            print(capability, f"{number}:{module.__name__}{name}", size)


if __name__ == "__main__":
    main()
