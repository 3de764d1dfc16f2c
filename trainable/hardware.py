"""Switches of torch that follow the hardware unless they are set."""

import os

import torch

from data.memory import keep_freed_memory
from trainable.config import TrainConfig

PRIMITIVES = 4096  # kept by oneDNN on a CPU: one for each operation and each shape


def set_up_torch(train: TrainConfig, threads: int, device: torch.device) -> None:
    """Set this process's threads, matmul precision and determinism.

    Args:
        train: `matmul_precision`, `deterministic`, `reduction`.
        threads: threads of intra-operator parallelism.
        device: device of the networks.
    """
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
        # Read at oneDNN's first operation. It keeps 1,024, a step of the full model has as many,
        # the next micro-batch some hundred others: each step would compile nearly all of its
        # operations again.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))

    matmul = train.matmul_precision
    if matmul == "auto":
        matmul = "high" if device.type == "cuda" else "highest"
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = matmul != "highest"

    deterministic = train.deterministic or train.reduction == "exact"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first cuBLAS call
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Every micro-batch has a new shape, which cuDNN would time its algorithms for: it waits for the
    # device and empties torch's cache of memory each time.
    torch.backends.cudnn.benchmark = False
