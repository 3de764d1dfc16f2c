"""The workers' process group, and what their processes need before it is made.

It lies on the network by which Ray's nodes know each other.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train.torch import TorchConfig

from data.gpu import gpu_trouble
from job.on_ray.private import BaseWorkerGroup
from trainable.compiling import compiler_trouble
from trainable.config import TrainConfig
from trainable.distributed.faults import PermanentError
from trainable.hardware import set_up_process

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


def prepare_worker(train: TrainConfig, gpu: bool) -> str:
    """Set what a worker's process reads once, and look at the GPU that Ray has given it.

    Args:
        train: `precision`, `compile`, and what decides determinism.
        gpu: whether the worker takes a GPU.

    Returns:
        Why the GPU cannot be used, or nothing be compiled, with the node's address; "" if all is
        well.
    """
    choose_interface()
    set_up_process(train, gpu)
    node = ray.util.get_node_ip_address()
    if not gpu:
        # Ray shows a node's GPUs to all its processes, and would put these networks on the first
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif trouble := gpu_trouble(train.precision):
        return f"the GPU of a worker on {node}: {trouble}"
    trouble = compiler_trouble(train, gpu)
    return trouble and f"a worker on {node}: {trouble}"


class _Backend(TorchBackend):
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: "ProcessGroupConfig") -> None:
        gpu = backend_config.backend == "nccl"
        found = worker_group.execute(prepare_worker, backend_config.train, gpu)
        if trouble := next(filter(None, found), ""):
            raise PermanentError(trouble)
        super().on_start(worker_group, backend_config)


@dataclass
class ProcessGroupConfig(TorchConfig):
    """Ray Train's process group, for which each worker is first prepared.

    Attributes:
        train: what `prepare_worker` is told.
    """

    train: TrainConfig = field(default_factory=TrainConfig)

    @property
    def backend_cls(self) -> type[_Backend]:
        """Return the class that sets the group up."""
        return _Backend
