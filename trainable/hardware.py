"""Switches of torch that follow the hardware unless they are set."""

import os

import torch

from data.memory import keep_freed_memory
from trainable.config import TrainConfig

PRIMITIVES = 4096  # that oneDNN keeps compiled on a CPU: one for each operation and each shape


def set_up_torch(train: TrainConfig, threads: int, device: torch.device) -> None:
    """Set this process's threads, matmul precision, attention back-ends and determinism.

    Args:
        train: `matmul_precision`, `attention_backends`, `deterministic`, `reduction`.
        threads: of intra-operator parallelism.
        device: of the networks.
    """
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
        # read at oneDNN's first operation; a step of the full model takes more than the 1,024 that oneDNN keeps, so that
        # it would compile every one of them anew
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))
    matmul = train.matmul_precision
    if matmul == "auto":
        matmul = "high" if device.type == "cuda" else "highest"
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = matmul != "highest"
    if "auto" not in train.attention_backends:
        torch.backends.cuda.enable_flash_sdp("flash" in train.attention_backends)
        torch.backends.cuda.enable_mem_efficient_sdp("mem_efficient" in train.attention_backends)
        torch.backends.cuda.enable_math_sdp("math" in train.attention_backends)
    deterministic = train.deterministic or train.reduction == "exact"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first cuBLAS call
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
