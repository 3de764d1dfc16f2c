"""Collective calls: every rank makes each of them, in the same order, or the others wait for it.

All of them work without a process group too, where this process is the only worker.

`collective` marks them, and every function that calls a marked one, up to the training loop: the
mark shows where the ranks must not part ways. tests/trainable/distributed/test_marks.py checks it.
"""

import platform
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data.files import StorageError, keep_trying

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


def collective(function: Function) -> Function:
    """Mark a function that all ranks must call, in the same order."""
    function.is_collective = True  # type: ignore[attr-defined]
    return function


def world_size() -> int:
    """Return the number of workers in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def backend() -> str:
    """Return the name of what carries the workers' calls: nccl, gloo, or "no group"."""
    return dist.get_backend() if dist.is_initialized() else "no group"


@collective
def broadcast(thing: T) -> T:
    """Return rank 0's object on all ranks; it is pickled."""
    box = [thing]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


@collective
def all_gather(thing: T) -> list[T]:
    """Return every rank's object, by rank, on all ranks; they are pickled."""
    everyone: list = [thing]
    if world_size() > 1:
        everyone = [None] * world_size()
        dist.all_gather_object(everyone, thing)
    return everyone


@collective
def gather_on_rank_zero(thing: T) -> list[T]:
    """Return every rank's object, by rank, on rank 0; nothing on the others. They are pickled."""
    if world_size() == 1:
        return [thing]

    is_first = dist.get_rank() == 0
    everyone: list = [None] * world_size() if is_first else []
    dist.gather_object(thing, everyone if is_first else None)
    return everyone


@collective
def all_gather_rows(
    own: Mapping[int, Tensor], rows: int, width: int, device: torch.device
) -> Tensor:
    """Return the rows of all workers as one table.

    Every entry is one value plus zeros, so the result does not depend on which worker held what.

    Args:
        own: row number -> values [width] of the rows that this worker holds.
        rows: number of rows of all workers together.
        width: values per row.
        device: where the table lies; the process group must be able to reduce there.

    Returns:
        float64 [rows, width].
    """
    table = torch.zeros(rows, width, dtype=torch.float64, device=device)
    for row, values in own.items():
        table[row] = values
    if world_size() > 1:
        dist.all_reduce(table)
    return table


@collective
def on_all_ranks(action: Callable[[], T], seconds: float) -> T:
    """Do on all ranks what may fail on one of them; if it fails, all stop alike.

    Args:
        action: may be repeated after any part of it was done.
        seconds: how long a failing storage is tried again.

    Returns:
        What `action` returned on this rank.

    Raises:
        ValueError: the first rank's, on all ranks.
        StorageError: the storage failed a rank for too long; the first one's, on all ranks.
    """
    result = None
    failure = None
    try:
        result = keep_trying(action, seconds)
    except (OSError, ValueError) as error:
        failure = isinstance(error, OSError), str(error), platform.node()

    everyone = all_gather(failure)
    failures = [(rank, *failed) for rank, failed in enumerate(everyone) if failed is not None]
    if not failures:
        return result  # type: ignore[return-value]

    rank, of_storage, message, node = failures[0]
    if len(failures) < len(everyone):
        message += f" (rank {rank}, on {node}; not on all)"
    if not of_storage:
        raise ValueError(message)
    raise StorageError(f"{message}. Free up space or fix the storage, then rerun the same command")
