"""Notices that the workers will be ended: a node is leaving, the run grows, or it is stopped.

A node leaves after a spot reclaim or `ray drain-node`.
"""

import time
from collections.abc import Callable

from ray.exceptions import RayActorError
from ray.train import PreemptionInfo

from trainable.distributed.collectives import broadcast, collective

Notice = PreemptionInfo
STOP = "the run is stopped"  # in place of a node's id


def stop_notice(seconds: float) -> Notice:
    """Return the notice that the run is stopped.

    Args:
        seconds: time that the workers have for saving.
    """
    return Notice(int((time.time() + seconds) * 1000), {STOP: []})


def is_stop(notice: Notice) -> bool:
    """Tell whether the workers are ended because the run is stopped."""
    return STOP in notice.preempted_node_to_ranks


def is_growth(notice: Notice) -> bool:
    """Tell whether the workers are ended because the run grows, and no node leaves."""
    return not notice.preempted_node_to_ranks


def reason(notice: Notice) -> str:
    """Return why the workers will be ended."""
    if is_stop(notice):
        return STOP
    if is_growth(notice):
        return "the cluster has grown"
    ranks = ", ".join(map(str, notice.preempted_ranks))
    return f"the node of rank {ranks} is leaving"


class PreemptedError(RayActorError):
    """Ends a worker whose run has been saved because of a notice.

    Ray Train then starts the workers again on the nodes that stay, and counts it as the preemption
    that it is rather than as a failure of the training.
    """

    def __init__(self, notice: Notice):
        super().__init__(error_msg=reason(notice), preempted=True)


class StoppedError(Exception):
    """Ends a worker whose run has been saved because it is stopped; nothing is started again."""


class Notices:
    """Asks for a notice every few seconds, in the same steps on all ranks."""

    def __init__(self, ask: Callable[[], Notice | None], seconds: float):
        """Ask first at the first step.

        Args:
            ask: returns the notice, if there is one; a collective call.
            seconds: time between two questions.
        """
        self.ask = ask
        self.seconds = seconds
        self.steps = 1  # from the last question to the next
        self.steps_to_go = 0
        self.asked = time.monotonic()

    @collective
    def poll(self) -> Notice | None:
        """Return the notice, if there is one; to be called after every step."""
        self.steps_to_go -= 1
        if self.steps_to_go > 0:
            return None

        notice = self.ask()
        now = time.monotonic()
        seconds_per_step = max((now - self.asked) / self.steps, 1e-3)
        steps = max(1, min(1000, int(self.seconds / seconds_per_step)))
        # every rank's clock differs: rank 0's counts
        self.steps = broadcast(steps)
        self.steps_to_go = self.steps
        self.asked = now
        return notice
