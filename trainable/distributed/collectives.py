"""Collective calls: every worker makes each of them, in the same order, or the others wait for it.

All of them work without a process group too, where this process is the only worker.
"""

import platform
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data.files import StorageError, keep_trying

T = TypeVar("T")


def world_size() -> int:
    """Return the number of workers in the process group; 1 without one. Not a collective call."""
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast(thing: T) -> T:
    """Return rank 0's object on all ranks; it is pickled. A collective call."""
    box = [thing]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather(thing: T) -> list[T]:
    """Return every rank's object, by rank, on all ranks; they are pickled. A collective call."""
    everyone: list = [thing]
    if world_size() > 1:
        everyone = [None] * world_size()
        dist.all_gather_object(everyone, thing)
    return everyone


def all_gather_rows(
    own: Mapping[int, Tensor], rows: int, width: int, device: torch.device
) -> Tensor:
    """Return the rows of all workers as one table. A collective call.

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


def on_all_ranks(action: Callable[[], T], seconds: float) -> T:
    """Do on all ranks what may fail on one of them; where it does, all stop alike. A collective call.

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
