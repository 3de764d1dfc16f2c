"""What one worker finds and all must know, so that all of them stop alike instead of waiting for the one that did."""

import platform
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from data.files import keep_trying
from trainable.reduction import world_size
from trainable.saver import StorageError

T = TypeVar("T")


def share(thing: T) -> T:
    """Rank 0's object on all ranks."""
    box = [thing]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(thing: T) -> list[T]:
    """Every rank's object, on all ranks."""
    everyone: list = [thing]
    if world_size() > 1:
        everyone = [None] * world_size()
        dist.all_gather_object(everyone, thing)
    return everyone


def together(action: Callable[[], T], seconds: float) -> T:
    """Do what may fail on one rank alone on all ranks; if it fails one of them for good, all stop alike.

    Args:
        action: may be done again after any part of it was done.
        seconds: that a storage which fails is given.

    Raises:
        ValueError: the first rank's.
        StorageError: the storage failed a rank for long; the first one's.
    """
    result, failure = None, None
    try:
        result = keep_trying(action, seconds)
    except (OSError, ValueError) as error:
        failure = isinstance(error, OSError), str(error), platform.node()
    everyone = gather(failure)
    failures = [(rank, *f) for rank, f in enumerate(everyone) if f is not None]
    if failures:
        rank, of_storage, said, node = failures[0]
        said += f" (rank {rank}, on {node}; not on all)" if len(failures) < len(everyone) else ""
        if not of_storage:
            raise ValueError(said)
        raise StorageError(f"{said}. Make room or mend the storage, and run the same command again")
    return result  # type: ignore[return-value]


class Agreement:
    """Hands one worker's error to all, over the host's network: no device waits for it."""

    def __init__(self, timeout_s: float):
        """All workers make one, at the same time.

        Args:
            timeout_s: seconds that a worker waits for the others; a new group does not take over the default one's.
        """
        timeout = timedelta(seconds=timeout_s)
        self.group = dist.new_group(timeout=timeout, backend="gloo") if world_size() > 1 else None

    def __call__(self, error: str) -> str:
        """The error of the first rank that has one, on all ranks; nothing where none has.

        A collective call, of one number where there is none. It is called before every step, where the hosts are ahead
        of their devices and would meet in the gradients' all-reduce anyway.
        """
        if self.group is None:
            return error
        found = torch.tensor(int(bool(error)))
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        if not found:
            return ""
        said: list[str] = [""] * world_size()
        dist.all_gather_object(said, error, group=self.group)
        return next(filter(None, said))
