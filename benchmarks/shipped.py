"""The cluster files that are shipped: their machines, networks and prices, read from the files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/kuberay-cluster.yaml")
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
GIGABIT = 1e9 / 8
DISK_GB = 150
DISK_PRICE = 0.08  # dollars per GB and month, of a gp3 volume
# dollars per GB to another zone, what sender and receiver pay together; the Kubernetes of AWS
BETWEEN_ZONES = dict(zip(FILES, (0.02, 0.01, 0.02), strict=True))
HOURS = 730  # a month


@dataclass(frozen=True)
class Machine:
    """A machine type.

    Attributes:
        gpus: number of GPUs.
        gbit: Gbit/s to other machines that are published: the baseline where it may burst, and at
            most what AWS gives one flow outside a placement group, 5 Gbit/s, for a single GPU.
        price: dollars per hour on demand.
        spot: dollars per hour as a spot machine, about.
    """

    gpus: int
    gbit: float
    price: float
    spot: float


# Networks: https://docs.aws.amazon.com/batch/latest/userguide/gpu-jobs.html (g6); for one flow
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth.html;
# https://cloud.google.com/compute/docs/accelerator-optimized-machines (g2) and
# https://cloud.google.com/compute/docs/general-purpose-machines (n2).
# Prices: us-west-2 and us-central1, rounded, from memory of the price lists of 2025.
MACHINES = {
    "m6i.xlarge": Machine(0, 1.5, 0.19, 0.08),
    "m6i.2xlarge": Machine(0, 3.1, 0.38, 0.15),
    "g6.12xlarge": Machine(4, 40, 4.60, 1.90),
    "g6.2xlarge": Machine(1, 5, 0.98, 0.40),
    "n2-standard-4": Machine(0, 10, 0.19, 0.05),
    "n2-standard-8": Machine(0, 16, 0.39, 0.10),
    "g2-standard-48": Machine(4, 50, 4.00, 1.60),
    "g2-standard-8": Machine(1, 16, 0.85, 0.35),
}


@dataclass(frozen=True)
class NodeType:
    """A node type of a cluster file.

    Attributes:
        name: its name there.
        machine: name of its machine type.
        priority: of several types, the one that is tried first has the highest.
        resources: what Ray knows of on a node.
    """

    name: str
    machine: str
    priority: int
    resources: dict[str, Any]

    @property
    def gpus(self) -> int:
        """GPUs of a node."""
        return MACHINES[self.machine].gpus


def node_types(file: str) -> dict[str, NodeType]:
    """Return the node types of a cluster file, by name.

    Args:
        file: one of FILES.
    """
    *_, config = yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8"))
    if "available_node_types" not in config:
        groups = [config["spec"]["headGroupSpec"], *config["spec"]["workerGroupSpecs"]]
        made = [_of_group(group, -number) for number, group in enumerate(groups)]
    else:
        made = [_of_type(name, own) for name, own in config["available_node_types"].items()]
    return {own.name: own for own in made}


def _of_type(name: str, own: dict[str, Any]) -> NodeType:
    node = own["node_config"]
    machine = node.get("InstanceType") or node["machineType"]
    return NodeType(name, machine, own.get("priority", 0), own["resources"])


def _of_group(group: dict[str, Any], priority: int) -> NodeType:
    """Of KubeRay, whose autoscaler knows no priorities: the first group that fits comes first."""
    selector = group["template"]["spec"]["nodeSelector"]
    return NodeType(
        group.get("groupName", "head"), selector[INSTANCE_TYPE], priority, group["rayStartParams"]
    )


def choices(file: str) -> list[NodeType]:
    """Return the GPU nodes of a cluster file, the first choice first."""
    of_gpus = [own for own in node_types(file).values() if own.gpus]
    return sorted(of_gpus, key=lambda own: -own.priority)


def per_hour(file: str, gpus: NodeType, count: int, traffic_gb: float) -> dict[str, float]:
    """Return the dollars per hour of a run: head, a data node, GPU nodes, disks, traffic.

    Args:
        file: one of FILES.
        gpus: node type of the GPU nodes, spot machines.
        count: GPUs in all.
        traffic_gb: GB per hour that the GPU nodes send each other.
    """
    types = node_types(file)
    nodes = -(-count // gpus.gpus)
    disks = (2 + nodes) * DISK_GB * DISK_PRICE / HOURS
    head, data = (MACHINES[types[name].machine].price for name in ("head", "data"))
    machines = head + data + nodes * MACHINES[gpus.machine].spot + disks
    return {
        "one_zone": machines,
        "traffic_gb": traffic_gb,
        "several_zones": machines + traffic_gb * BETWEEN_ZONES[file],
    }
