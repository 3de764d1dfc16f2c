"""Operators of ours: one definition, torch code for CPUs, Triton for GPUs, shapes for tracing."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "bert_vits2"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


@cache
def has_triton() -> bool:
    """Tell whether Triton is installed; torch's wheels bring it along on Linux alone."""
    return find_spec("triton") is not None


def on_gpu(x: Tensor) -> bool:
    """Tell whether what follows takes the form that is made for GPUs."""
    return x.device.type == "cuda"


def joined(x: Tensor) -> bool:
    """Tell whether what follows takes the form with few kernels: on a GPU with Triton.

    Not inside torch.compile, which joins torch's own operators with their neighbours.
    """
    return not torch.compiler.is_compiling() and on_gpu(x) and has_triton()


def takes_kernels(x: Tensor) -> bool:
    """Tell whether an operator on x runs in Triton: on a GPU, up to fp32.

    Kernels keep their constants and sums in fp32; double precision is for parity tests.
    """
    return on_gpu(x) and has_triton() and x.dtype != torch.float64


def operator(
    schema: str, in_torch: Callable, in_triton: Callable, shapes: Callable
) -> Callable[..., Any]:
    """Define an operator that takes a tensor first.

    Args:
        schema: `name(Tensor x, ...) -> ...`, as torch.library writes it.
        in_torch: computes it from torch's operators, wherever `takes_kernels` says no.
        in_triton: computes it on a GPU. It imports Triton when it is called.
        shapes: returns empty tensors as `in_triton` does.

    Returns:
        The operator; autograd knows nothing of it.
    """
    name = schema.partition("(")[0]

    def on_cuda(x: Tensor, *args: Any) -> Any:
        return (in_triton if takes_kernels(x) else in_torch)(x, *args)

    def traced(x: Tensor, *args: Any) -> Any:
        return (shapes if takes_kernels(x) else in_torch)(x, *args)

    LIBRARY.define(schema)
    LIBRARY.impl(name, in_torch, "CPU")
    LIBRARY.impl(name, on_cuda, "CUDA")
    torch.library.register_fake(f"{NAMESPACE}::{name}", traced, lib=LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name).default
