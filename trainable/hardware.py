"""Switches of torch that follow the hardware unless they are set."""

import os

import torch

from data.memory import keep_freed_memory
from trainable.config import TrainConfig

PRIMITIVES = 4096  # kept by oneDNN on a CPU: one for each operation and each shape
# Kept by cuFFT on a GPU, each with memory of its own; torch's default is 4,096. One transform of a
# step has the segment's shape, the other one that is new in nearly every step.
FFT_PLANS = 16
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def is_deterministic(train: TrainConfig) -> bool:
    """Tell whether kernels must give the same bits in every run."""
    return train.deterministic or train.reduction == "exact"


def set_up_process(train: TrainConfig, gpu: bool) -> None:
    """Set what torch, CUDA and NCCL read once, at their first call or with the process group.

    Environment variables that the user has set take precedence.

    Args:
        train: `deterministic`, `reduction`.
        gpu: whether this process computes on a GPU.
    """
    deterministic = is_deterministic(train)
    if gpu and not any(name in os.environ for name in ALLOCATOR):
        # Each micro-batch has another shape: segments of fixed sizes would be left with holes.
        # The first name is read by all of torch; the others are older.
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"
    if deterministic:
        # Of the values that torch accepts for deterministic cuBLAS, the one that its page on LSTMs
        # names too: with buffers of two sizes cuDNN's LSTM takes either.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        # sums inside the switch have no fixed order
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    if deterministic != torch.are_deterministic_algorithms_enabled():  # it imports the compiler
        # an operation that has no deterministic kernel fails, and is named
        torch.use_deterministic_algorithms(deterministic)
    # Else all fresh memory is filled, for the sake of code that reads what it has not written: a
    # step filled 13,454 tensors instead of 918.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def set_up_torch(train: TrainConfig, threads: int, device: torch.device) -> None:
    """Set this process's threads, matmul precision, caches and determinism.

    Args:
        train: `matmul_precision`, `deterministic`, `reduction`.
        threads: threads of intra-operator parallelism.
        device: device of the networks.
    """
    gpu = device.type == "cuda"
    set_up_process(train, gpu)
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
        # Read at oneDNN's first operation. It keeps 1,024, a step of the full model has as many,
        # the next micro-batch some hundred others: each step would compile nearly all of its
        # operations again.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))
    if gpu and torch.cuda.is_available():
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.backends.cuda.cufft_plan_cache[index].max_size = FFT_PLANS

    matmul = train.matmul_precision
    if matmul == "auto":
        matmul = "high" if gpu else "highest"
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = matmul != "highest"
    # Every micro-batch has a new shape, which cuDNN would time its algorithms for: it waits for the
    # device and empties torch's cache of memory each time.
    torch.backends.cudnn.benchmark = False


def bf16_of(device: torch.device) -> tuple[str, bool]:
    """Return a device's name, and whether it computes bf16 itself: GPUs from Ampere on do."""
    if device.type != "cuda":
        return device_name(device), False
    with torch.cuda.device(device):
        return device_name(device), torch.cuda.is_bf16_supported(including_emulation=False)


def device_name(device: torch.device) -> str:
    """Return what decides the last bits of a device's results: the GPU's name, or the CPU's kind.

    torch and oneDNN have kernels for each kind of vector instructions, with other orders of sums.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} with {torch.backends.cpu.get_cpu_capability()}"
