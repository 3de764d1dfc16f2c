"""Notices that the workers will be ended: a node is going (a spot reclaim, `ray drain-node`), or the run grows."""

import time
from collections.abc import Callable

import ray.train
from ray.exceptions import RayActorError
from ray.train import PreemptionInfo


class PreemptedError(RayActorError):
    """Ends a worker whose run has been saved because of a notice.

    Ray Train then starts the workers again on the nodes that stay, and counts it as the preemption
    that it is rather than as a failure of the training.
    """

    def __init__(self, info: PreemptionInfo):
        super().__init__(error_msg=reason(info), preempted=True)


def reason(info: PreemptionInfo) -> str:
    """Why the workers will be ended."""
    ranks = info.preempted_ranks
    return (
        f"the node of rank {', '.join(map(str, ranks))} is going"
        if ranks
        else "the cluster has grown"
    )


class Notices:
    """Asks Ray Train for a notice every few seconds, in the same steps on all ranks."""

    def __init__(self, share: Callable[[int], int], seconds: float):
        """Ask first at the first step.

        Args:
            share: hands rank 0's number to all ranks.
            seconds: between two questions; a question is a barrier of some milliseconds.
        """
        self.share, self.seconds = share, seconds
        self.steps_to_go, self.steps, self.asked = 0, 1, time.monotonic()

    def pending(self) -> PreemptionInfo | None:
        """The notice, where there is one; to be called after every step by all ranks."""
        self.steps_to_go -= 1
        if self.steps_to_go > 0:
            return None
        info = ray.train.get_preemption_info()
        now = time.monotonic()
        seconds_per_step = (now - self.asked) / self.steps
        # every rank's clock says something else: rank 0's counts
        self.steps = self.share(max(1, min(1000, int(self.seconds / max(seconds_per_step, 1e-3)))))
        self.steps_to_go, self.asked = self.steps, now
        return info
