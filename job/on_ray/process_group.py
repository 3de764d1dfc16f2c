"""The workers' process group, on the network by which Ray's nodes know each other."""

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig

from job.on_ray.private import BaseWorkerGroup

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
TorchBackend: Any = TorchConfig("gloo").backend_cls


def choose_interface() -> None:
    """Have gloo use the interface of this node's address in the cluster, unless one is set.

    Gloo itself takes the address of the host's name, which many hosts resolve to 127.0.1.1: no
    other node reaches that.
    """
    import psutil  # Ray brings it, and puts it on the path

    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if own in (each.address for each in addresses):
            os.environ.setdefault(GLOO_INTERFACE, name)


class _Backend(TorchBackend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class ProcessGroupConfig(TorchConfig):
    """Ray Train's process group, for which each worker first chooses its network interface."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """Return the class that sets the group up."""
        return _Backend
