"""Two jobs on one cluster: each has its share, as Ray's own coordinator hands them out."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    _AutoscalingCoordinatorActor,
)

from job import train
from job.on_ray import sharing
from job.on_ray.failures import FailuresInARow
from job.on_ray.private import (
    ElasticScalingPolicy,
    FailureConfig,
    NoopDecision,
    ResizeDecision,
    ScalingConfig,
    TrainAutoscalingCoordinatorClient,
    cluster_state,
    policies,
)
from job.on_ray.scaling import ElasticTrainer, PromptScaling, give_back, requester_id
from job.on_ray.sharing import most_workers, planned_resources
from job.on_ray.training import loaders_for
from tests.job.conftest import DEMO, overrides
from tests.job.test_elastic import run_of
from tests.tiny import demo_config
from tools.local_cluster import LocalCluster
from trainable.worker.config import WorkerConfig

PER_WORKER = {"CPU": 1.0, "GPU": 1.0}
SHARED = {"num_workers": [1, 4], "device": "cuda"}


class Cluster:
    """GPU nodes, and who has reserved them."""

    def __init__(self, nodes: int):
        self.nodes = {f"node-{i}": {"CPU": 1.0, "GPU": 1.0} for i in range(nodes)}
        self.coordinator = _AutoscalingCoordinatorActor(
            send_resources_request=lambda *_, **__: None, get_cluster_nodes=self.up
        )

    def up(self) -> list[dict[str, Any]]:
        return [{"NodeID": n, "Alive": True, "Resources": r} for n, r in self.nodes.items()]

    def resources(self) -> dict[str, float]:
        return {name: float(len(self.nodes)) for name in PER_WORKER}

    @property
    def as_actor(self) -> Any:
        names = ("request_resources", "cancel_request", "get_reserved_resources")
        return SimpleNamespace(
            **{name: SimpleNamespace(remote=getattr(self.coordinator, name)) for name in names}
        )


@pytest.fixture
def cluster(monkeypatch):
    """Four GPU nodes; nobody waits for an answer."""
    made = Cluster(4)
    monkeypatch.setattr(
        TrainAutoscalingCoordinatorClient, "_autoscaling_coordinator", made.as_actor
    )
    monkeypatch.setattr(ray, "get", lambda answer, timeout=None: answer)
    monkeypatch.setattr(ray, "nodes", made.up)
    monkeypatch.setattr(ray, "cluster_resources", made.resources)
    monkeypatch.setattr(ray, "available_resources", dict)
    monkeypatch.setattr(cluster_state, "get_draining_nodes", dict)
    monkeypatch.setattr(sharing, "most_resources", dict)
    return made


def config(low: int, high: int) -> ScalingConfig:
    return ScalingConfig(
        num_workers=(low, high),
        use_gpu=True,
        resources_per_worker=PER_WORKER,
        elastic_resize_monitor_interval_s=0,
    )


def run(name: str, max_share: float = 1.0, low: int = 1, high: int = 4) -> PromptScaling:
    policy = PromptScaling(config(low, high), None, max_share)
    policy.reserve_as(requester_id(name))
    return policy


def started(policy: PromptScaling) -> int:
    decision = policy.make_decision_for_non_running_worker_group()
    return decision.num_workers if isinstance(decision, ResizeDecision) else 0


class Workers:
    """A running group, which takes notices."""

    def __init__(self, count: int):
        self.num_workers, self.start_time, self.notices = count, 0.0, 0
        mark = SimpleNamespace(remote=self.take)
        self.workers = [SimpleNamespace(actor=SimpleNamespace(mark_preempt=mark))] * count

    def take(self, notice: Any) -> None:
        self.notices += 1


def notices(policy: PromptScaling, workers: int) -> int:
    """How many workers are told to save and leave, at a look."""
    group = Workers(workers)
    decision = policy.make_decision_for_running_worker_group(group, None)
    assert isinstance(decision, NoopDecision)
    return group.notices


def test_two_jobs_have_a_share_each(cluster):
    first, second = run("first", 0.5), run("second", 0.5)
    assert (started(first), started(second)) == (2, 2)
    assert notices(first, 2) == notices(second, 2) == 0


def test_without_shares_the_first_job_takes_all_and_the_second_one_waits(cluster, capsys):
    first, second = run("first"), run("second")
    assert (started(first), started(second)) == (4, 0)
    assert "waiting for nodes" in capsys.readouterr().out
    give_back("first")
    assert started(second) == 4


def test_a_job_gives_up_what_is_more_than_its_share_and_the_other_one_gets_it(cluster):
    first, second = run("first", 0.5), run("second", 0.7, low=2)
    assert started(first) == 2
    for gone in ("node-2", "node-3"):
        del cluster.nodes[gone]
    cluster.nodes["node-4"] = {"CPU": 1.0, "GPU": 1.0}
    assert notices(first, 2) == 2  # of three nodes, one is its share
    assert started(first) == 1
    assert started(second) == 2


def test_a_share_grows_with_the_cluster(cluster):
    policy = run("one", 0.5)
    assert started(policy) == 2
    cluster.nodes |= {f"more-{i}": {"CPU": 1.0, "GPU": 1.0} for i in range(2)}
    assert notices(policy, 2) == 2
    assert started(policy) == 3


def test_a_run_without_a_share_is_never_told_to_shrink(cluster):
    policy = run("one")
    assert started(policy) == 4
    del cluster.nodes["node-3"]
    assert notices(policy, 4) == 0  # those who were there know it


@pytest.mark.parametrize(
    ("gpus", "share", "expected"),
    [(8, 0.5, 4), (7, 0.5, 3), (100, 0.29, 29), (1, 0.5, 1), (0, 0.5, 1), (100, 0.9, 64)],
)
def test_a_share_is_whole_workers_within_the_bounds(monkeypatch, cluster, gpus, share, expected):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 200.0, "GPU": float(gpus)})
    assert most_workers(config(1, 64), share) == expected


def test_the_share_is_of_what_the_workers_lack_first(monkeypatch, cluster):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "trainer": 4.0})
    per_worker = {"CPU": 2.0, "trainer": 1.0}
    assert (
        most_workers(ScalingConfig(num_workers=(1, 8), resources_per_worker=per_worker), 0.5) == 2
    )


def test_nodes_that_an_autoscaler_may_start_count(monkeypatch, cluster, tmp_path):
    """As `ray up` leaves its file on the head; four GPUs in one node and four single ones."""
    file = tmp_path / "ray_bootstrap_config.yaml"
    monkeypatch.setattr(sharing, "AUTOSCALING_CONFIG", str(file))
    assert planned_resources() == {}
    file.write_text(
        "available_node_types:\n"
        "  head: {resources: {CPU: 4}, max_workers: 0}\n"
        "  gpu: {resources: {CPU: 4, GPU: 4}, max_workers: 1}\n"
        "  gpu-fallback: {resources: {CPU: 1, GPU: 1}, max_workers: 4}\n"
    )
    cluster.nodes.clear()
    assert planned_resources() == {"CPU": 8, "GPU": 8}
    assert most_workers(config(1, 8), 0.5) == 4


def test_a_share_that_the_cluster_does_not_tell_stays(cluster, monkeypatch, capsys):
    policy = run("one", 0.5)

    def silent() -> dict[str, float]:
        raise ray.exceptions.RpcError("no answer")

    monkeypatch.setattr(ray, "cluster_resources", silent)
    assert policy.wanted_workers() == 2
    assert "the run's share stays" in capsys.readouterr().out


def test_releases_that_name_no_nodes_are_understood(cluster, monkeypatch):
    """Ray 2.59 tells bundles alone; a node that drains holds none."""
    monkeypatch.setattr(policies, "TELLS_NODES", False)
    told = cluster.coordinator.get_reserved_resources
    actor = cluster.as_actor
    actor.get_reserved_resources.remote = lambda name: [
        dict(PER_WORKER) for amounts in told(name).values() for _ in range(int(amounts["GPU"]))
    ]
    monkeypatch.setattr(TrainAutoscalingCoordinatorClient, "_autoscaling_coordinator", actor)
    policy = run("one", 0.75)
    held = policy.reserved_resources()
    assert sum(amounts["GPU"] for amounts in held.values()) == 3
    monkeypatch.setattr(cluster_state, "get_draining_nodes", lambda: {"node-0": 1, "node-1": 1})
    held = policy.reserved_resources()
    assert held == dict.fromkeys(("node-2", "node-3"), PER_WORKER)
    assert policy._get_reserved_resources() == [PER_WORKER] * 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_jobs_train_beside_each_other(shards, tmp_path):
    """Of three nodes one job has two; when one node dies, it gives one up for the other job."""
    options = {"train__max_steps": 10_000, "train__micro_batches_per_step": 3}
    options |= {"scaling__num_workers": "[1, 3]"}
    with (
        LocalCluster(workers=3) as nodes,
        run_of(nodes, tmp_path, shards, "large", **options, scaling__max_share=0.7) as large,
        run_of(nodes, tmp_path, shards, "small", **options, scaling__max_share=0.34) as small,
    ):
        large.wait_for_workers(2)
        small.wait_for_workers(1)
        nodes.kill_node(nodes.nodes[-1])
        large.wait_for_workers(1)
        for each in (large, small):
            each.wait_for(each.last_step() + 3)
        assert {event.workers for event in small.events() if event.kind == "step"} == {1}


def test_loaders_share_too(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = {"CPU": 12.0, "GPU": 4.0}
    alone, beside = (
        replace(cfg := demo_config(), scaling=replace(cfg.scaling, **SHARED | {"max_share": share}))
        for share in (1, 0.5)
    )
    assert loaders_for(alone, cluster) == 8
    assert loaders_for(beside, cluster) == 4


def test_a_fixed_number_takes_no_share(tmp_path):
    given = overrides(
        scaling__num_workers=2, scaling__max_share=0.5, run__storage=tmp_path, data__shards=tmp_path
    )
    with pytest.raises(ValueError, match=r"scaling\.max_share is 0\.5, and .*num_workers is 2"):
        train.main(["--config", str(DEMO), *given])
    assert not list(tmp_path.iterdir())


def test_the_trainer_hands_the_share_on(tmp_path):
    told = WorkerConfig.__new__(WorkerConfig)
    object.__setattr__(told, "folder", str(tmp_path))
    trainer = ElasticTrainer(
        print, train_loop_config={"worker": told}, scaling_config=config(1, 4), max_share=0.25
    )
    given = {
        "scaling_policy": ElasticScalingPolicy(config(1, 4)),
        "failure_policy": FailuresInARow(FailureConfig(), lambda: -1),
        "callbacks": [],
    }
    assert trainer.tailored(given)["scaling_policy"].max_share == 0.25
