"""Ray's autoscaler with the node types of cluster.yaml, its nodes being processes of this machine.

There is none at first; a job asks, nodes come, the training grows, the job ends, nodes go.
"""

import json
import sys
import time

import pytest
import yaml

from tests.job.test_elastic import OPTIONS
from tests.test_house import ROOT
from tools.cluster_run import ClusterRun
from tools.local_cluster import LocalCluster


def local_node_types() -> dict[str, dict]:
    """Those of cluster.yaml but the head's, without what only a cloud has: machines, and GPUs."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {
        name: of
        for name, of in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    for of in types.values():
        of["node_config"] = {}
        of["resources"] = {name: n for name, n in of["resources"].items() if name != "GPU"}
        of["resources"]["object_store_memory"] = 10**8
    return types


# asks the autoscaler: a driver of ours would keep the node busy whose address it has
STATUS = """
import json, sys
from ray.autoscaler.v2.sdk import get_cluster_status
status = get_cluster_status(sys.argv[1])
nodes = [*status.active_nodes, *status.idle_nodes]
print(json.dumps([(node.ray_node_type_name, list(node.node_activity or [])) for node in nodes]))
"""
HEAD = "ray.head.default"


def nodes_up(cluster: LocalCluster) -> list[tuple[str, list[str]]]:
    """Return the type of each node and what keeps it busy, or why there is no answer."""
    done = cluster.run([sys.executable, "-c", STATUS, cluster.address])
    if done.returncode or not done.stdout.strip():
        return [("no answer", done.stderr.splitlines()[-3:])]
    return sorted(json.loads(done.stdout))


def types(nodes: list[tuple[str, list[str]]]) -> list[str]:
    return [kind for kind, _ in nodes]


def wait_until(cluster: LocalCluster, wanted: list[str], timeout: float) -> float:
    """Seconds until these nodes are up and no others."""
    began = time.monotonic()
    while types(found := nodes_up(cluster)) != wanted:
        assert time.monotonic() - began < timeout, f"{found} after {timeout} s"
        time.sleep(1)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nodes_come_and_go_with_the_job(shards, tmp_path):
    options = OPTIONS | {
        "data.shards": shards,
        "data.loaders": 1,
        "scaling.loader_resources": '{"data": 1}',
        "train.max_steps": 40,
    }
    with LocalCluster(workers=0, head_cpus=0, node_types=local_node_types()) as cluster:
        wait_until(cluster, [HEAD], 30)
        with ClusterRun(cluster, tmp_path, "a", options) as run:
            run.wait_for_workers(2, timeout=400)
            wait_until(cluster, ["data", "gpu-fallback", "gpu-fallback", HEAD], 90)
            run.finish(timeout=400)
            workers = [event.workers for event in run.events() if event.kind == "step"]
        print(f"\nworkers of each step: {workers}")
        assert workers[0] == 1  # the training does not wait for the second node
        assert [line["step"] for line in run.losses()] == list(range(1, 41))
        print(f"the nodes were gone {wait_until(cluster, [HEAD], 150):.0f} s after the job")
