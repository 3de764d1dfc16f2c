"""The workers' process group, on the network by which Ray's nodes know each other."""

import os
from dataclasses import dataclass

import ray
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


def choose_interface() -> None:
    """Have gloo use the interface that bears this node's address in the cluster, unless the environment names one.

    Gloo itself takes the address of the host's name, which many hosts resolve to 127.0.1.1: no
    other node reaches that.
    """
    import psutil  # Ray brings it, and puts it on the path

    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if own in (each.address for each in addresses):
            os.environ.setdefault(GLOO_INTERFACE, name)


class _Backend(_TorchBackend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:  # type: ignore[override]
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class ProcessGroupConfig(TorchConfig):
    """Ray Train's configuration of a process group, whose workers choose their interfaces before it is made."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What makes it."""
        return _Backend
