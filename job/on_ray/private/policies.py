"""Ray Train's policies for the number of workers and for failures, to be subclassed."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray

# The policy for failures, and what it answers.
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy

# The policies for the number of workers.
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, ScalingPolicy

# Who reserves the workers' resources, under a name.
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)

from job.on_ray.private.releases import needs, release

needs(
    ScalingPolicy,
    "_autoscaling_coordinator",
    "_cancel_resource_request",
    "_coordinator_client",
    "_get_num_workers_for_resource_request",
    "_requester_id",
    "_send_resource_request",
    "after_controller_start",
    "before_controller_abort",
)
needs(ElasticScalingPolicy, "_get_reserved_resources")
needs(
    DefaultFailurePolicy,
    "_controller_failures",
    "_preemption_failures",
    "_worker_group_failures",
    "make_decision",
)

TELLS_NODES = release() >= (2, 60)  # earlier ones tell what is reserved, and not on which node


def placed(
    bundles: Sequence[Mapping[str, float]], nodes: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Return which node could hold what is reserved: node id -> resource -> amount.

    A bundle for which no node has room is left out: its node is gone, or going.

    Args:
        bundles: what is reserved, wherever that is.
        nodes: id of each node -> what it has.
    """
    free = {node: dict(amounts) for node, amounts in nodes.items()}
    held: dict[str, dict[str, float]] = {}
    for bundle in bundles:
        for node, amounts in free.items():
            if all(amounts.get(name, 0) >= amount for name, amount in bundle.items()):
                on_node = held.setdefault(node, {})
                for name, amount in bundle.items():
                    amounts[name] = amounts.get(name, 0) - amount
                    on_node[name] = on_node.get(name, 0) + amount
                break
    return held


class NamedReservation(ScalingPolicy):
    """A scaling policy whose reservation has a name of our choice."""

    def is_ours(self) -> bool:
        """Tell whether what is reserved under that name is this policy's, to be given back."""
        return True

    def _cancel_resource_request(self) -> None:
        if self.is_ours():
            super()._cancel_resource_request()

    def reserve_as(self, requester: str) -> None:
        """Reserve the workers' resources under a name."""
        self._requester_id = requester
        self._coordinator_client = TrainAutoscalingCoordinatorClient(requester)
        self.reserve()

    def reserve(self) -> None:
        """Reserve what the workers take now; Ray does so every 20 s."""
        self._send_resource_request()

    def what_is_reserved(
        self, nodes: Mapping[str, Mapping[str, float]], timeout_s: float
    ) -> dict[str, dict[str, float]]:
        """Ask the cluster what it holds for this reservation: node id -> resource -> amount.

        Args:
            nodes: id of each node that lives and stays -> what it has.
            timeout_s: seconds within which it must have answered.

        Raises:
            RayError: it has not.
        """
        ask = self._autoscaling_coordinator.get_reserved_resources.remote
        if TELLS_NODES:
            reserved = ray.get(ask(self._requester_id, recompute=True), timeout=timeout_s)
            # the answer still holds nodes that are gone or draining
            return {node: amounts for node, amounts in reserved.items() if node in nodes}
        return placed(ray.get(ask(self._requester_id), timeout=timeout_s), nodes)


class ElasticPolicy(ElasticScalingPolicy):
    """Ray Train's elastic policy, with its view of the cluster and its wishes to be overridden."""

    def wanted_workers(self) -> int:
        """Return for how many workers resources are reserved."""
        raise NotImplementedError

    def reserved_resources(self) -> dict[str, dict[str, float]] | None:
        """Return what each node holds for the workers; None where that is unknown."""
        raise NotImplementedError

    def _get_num_workers_for_resource_request(self) -> int:
        return self.wanted_workers()

    def _get_reserved_resources(self) -> Any:
        reserved = self.reserved_resources()
        return reserved if TELLS_NODES or reserved is None else list(reserved.values())


class ForgivingPolicy(DefaultFailurePolicy):
    """Ray Train's policy for failures, which can forget those that it has counted."""

    def forget(self) -> None:
        """Count from zero again."""
        self._worker_group_failures = 0
        self._controller_failures = 0
        self._preemption_failures = 0
