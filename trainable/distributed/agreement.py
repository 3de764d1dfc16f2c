"""One worker's error made known to all, so that all stop alike and none waits for the others."""

from datetime import timedelta

import torch
import torch.distributed as dist

from trainable.distributed.collectives import collective, world_size


class Agreement:
    """Hands one worker's error to all, over the hosts' network: no device waits for it."""

    @collective
    def __init__(self, timeout_s: float):
        """Make a process group of its own.

        Args:
            timeout_s: seconds that a worker waits for the others; a new group does not inherit the
                default group's timeout.
        """
        timeout = timedelta(seconds=timeout_s)
        self.group = dist.new_group(timeout=timeout, backend="gloo") if world_size() > 1 else None

    @collective
    def first_error(self, error: str) -> str:
        """Return the error of the first rank that has one, "" if none has.

        Without an error it exchanges one number. It is called before every step, where the hosts
        are ahead of their devices and would meet in the gradients' all-reduce anyway.

        Args:
            error: this rank's error, or "".
        """
        if self.group is None:
            return error

        found = torch.tensor(int(bool(error)))
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        if not found:
            return ""

        errors: list[str] = [""] * world_size()
        dist.all_gather_object(errors, error, group=self.group)
        return next(filter(None, errors))
