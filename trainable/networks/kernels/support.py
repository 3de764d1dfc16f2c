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


def joined(x: Tensor) -> bool:
    """Tell whether what follows takes the form with few kernels: on a GPU with Triton.

    Not inside torch.compile, which joins torch's own operators with their neighbours.
    """
    return not torch.compiler.is_compiling() and x.device.type == "cuda" and has_triton()


def operator(
    schema: str, in_torch: Callable, in_triton: Callable, shapes: Callable
) -> Callable[..., Any]:
    """Define an operator that takes a tensor first.

    Args:
        schema: `name(Tensor x, ...) -> ...`, as torch.library writes it.
        in_torch: computes it from torch's operators: on CPUs, and where there is no Triton.
        in_triton: computes it on a GPU. It imports Triton when it is called.
        shapes: returns empty tensors as `in_triton` does.

    Returns:
        The operator; autograd knows nothing of it.
    """
    name = schema.partition("(")[0]

    def on_gpu(*args: Any) -> Any:
        return (in_triton if has_triton() else in_torch)(*args)

    def traced(x: Tensor, *args: Any) -> Any:
        kernel = x.device.type == "cuda" and has_triton()
        return (shapes if kernel else in_torch)(x, *args)

    LIBRARY.define(schema)
    LIBRARY.impl(name, in_torch, "CPU")
    LIBRARY.impl(name, on_gpu, "CUDA")
    torch.library.register_fake(f"{NAMESPACE}::{name}", traced, lib=LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name).default
