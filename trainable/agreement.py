"""What one worker finds and all must know, so that all of them stop alike instead of waiting for the one that did."""

from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from trainable.reduction import world_size

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
