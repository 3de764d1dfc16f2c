"""Nodes go, come and die under a run on several raylets; its bits stay the same.

What a process needs lives on its node: losing another node does not take it away.

Needs no cloud: tools/local_cluster.py. The slow suite repeats it at random for CHAOS_MINUTES (20)
minutes.
"""

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_house import ROOT
from tools.cluster_run import ClusterRun
from tools.local_cluster import LocalCluster, Node
from trainable.run.format import checkpoint_name
from trainable.run.storage import newest_good, read_state

OPTIONS = {
    "model.n_flow_layer": 2,
    "model.resblock_kernel_sizes": "[3]",
    "model.resblock_dilation_sizes": "[[1, 3]]",
    "train.segment_size": 4096,
    "data.plan.max_frames": 300,
    "train.micro_batches_per_step": 2,
    "train.reduction": "exact",
    "train.checkpoint.every_steps": 5,
    "eval.every_steps": 10_000,
    "eval.samples": 0,
    "eval.max_utterances": 1,
    "eval.syntheses": 0,
    "scaling.num_workers": "[1, 2]",
    "scaling.resize_interval_s": 3,
}

MAKES = """
import json, sys
from types import SimpleNamespace

import ray

from data.stream.datasets import start_orders
from job.on_ray.private import cluster_state as state
from job.settings.config import Config, RunSettings
from tuning import trial

def train(cfg, callbacks):
    made.append(callbacks[0].queue.actor)

ray.init(log_to_driver=False)
made = [start_orders(f"orders-{number}", 8, 0, 1) for number in range(6)]
trial.train = train
context = SimpleNamespace(get_trial_id=lambda: "one")
trial.tune = SimpleNamespace(get_context=lambda: context, report=print)
for _ in range(2):
    cfg = Config(run=RunSettings("all", sys.argv[1]))
    trial.train_in_one_go({}, trial.TrialConfig(cfg, "eval/mel"))
for actor in made:
    ray.get(actor.__ray_ready__.remote())
nodes = [state.actor_table(actor._actor_id.hex())["Address"]["NodeID"] for actor in made]
print(json.dumps([nodes, ray.get_runtime_context().get_node_id()]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=2) as started:
        yield started


def run_of(
    cluster: LocalCluster, root: Path, shards: Path, name: str, **options: Any
) -> ClusterRun:
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return ClusterRun(cluster, root, name, OPTIONS | {"data.shards": shards} | dotted)


def redone(run: ClusterRun) -> list[int]:
    """Steps that were done again at each resume."""
    events, again = run.events(), []
    for i, event in enumerate(events):
        if event.kind == "resume":
            again.append(
                max((e.step for e in events[:i] if e.kind == "step"), default=0) - event.step
            )
    return again[1:]


def same(run: ClusterRun, calm: ClusterRun) -> None:
    """Final step, parameters, and every step's losses and utterances are those of another run."""
    assert run.parameters() == calm.parameters()
    assert run.losses() == calm.losses()


def test_actors_of_one_process_are_on_its_node(cluster, tmp_path):
    script = tmp_path / "makes.py"
    script.write_text(MAKES)
    done = cluster.run(
        ["env", f"PYTHONPATH={ROOT}", sys.executable, str(script), str(tmp_path)], timeout=200
    )
    assert done.returncode == 0, done.stderr
    nodes, own = json.loads(done.stdout.splitlines()[-1])
    assert nodes == [own] * 8


def test_a_hook_that_drains_an_idle_node_ends_with_the_node(cluster, tmp_path):
    going = cluster.nodes[-1]
    log = tmp_path / "spot.log"
    argv = ["--now", "--cloud", "none", "--term-grace-s", "300", "--node-ip", going.address]
    hook = cluster.start_on(going, [sys.executable, "-m", "job.spot", *argv], log)
    assert hook.wait(60) == 0, log.read_text()
    assert "has ended" in log.read_text()
    cluster.kill_node(going)
    cluster.add_node()


@pytest.mark.timeout(600)
def test_a_drain_a_join_and_kills_of_node_and_driver_change_no_bit(
    cluster, call, ray_local, shards, tmp_path
):
    with run_of(cluster, tmp_path, shards, "run", train__max_steps=10_000) as run:
        run.wait_for_workers(2)
        run.wait_for(3)
        going = cluster.nodes[-1]
        log = tmp_path / "spot.log"
        argv = [sys.executable, "-m", "job.spot", "--cloud", "none", "--node-ip", going.address]
        watcher = cluster.start_on(going, argv, log)
        while "watches SIGTERM" not in log.read_text():
            assert watcher.poll() is None, log.read_text()
            time.sleep(0.1)
        watcher.send_signal(signal.SIGTERM)
        run.wait_for_workers(1)
        assert watcher.wait(60) == 0, log.read_text()
        cluster.kill_node(going)
        cluster.add_node()
        run.wait_for_workers(2)
        assert redone(run) == [0, 0]  # both saved first
        run.wait_for(run.last_step() + 2)
        cluster.kill_node(cluster.nodes[0])
        run.wait_for_workers(1)
        run.kill_driver()
        run.options["train.max_steps"] = steps = run.last_step() + 2
        run.start()
        run.finish(timeout=150)  # Ray forgets what the dead one had reserved after 180 s
        assert max(redone(run)) <= OPTIONS["train.checkpoint.every_steps"]
    # on one node, without another process
    options = {"train__max_steps": steps, "scaling__num_workers": 1}
    calm = run_of(cluster, tmp_path, shards, "calm", scaling__worker_resources="{}", **options)
    done = call("job.train", *calm.arguments())
    assert done.returncode == 0, done.stderr
    same(run, calm)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_validation_that_a_notice_has_put_off_is_made_up_for(shards, tmp_path):
    """Validate after each step: the notice precedes one, and the workers leave without it."""
    options = {"eval__every_steps": 1, "train__max_steps": 8}
    with LocalCluster(workers=2) as cluster:
        with run_of(cluster, tmp_path, shards, "run", **options) as run:
            run.wait_for_workers(2)
            run.wait_for(2)
            cluster.drain_node(cluster.nodes[-1], 60)
            run.finish()
        assert set(redone(run)) == {0}
        with run_of(cluster, tmp_path, shards, "calm", scaling__num_workers=1, **options) as calm:
            calm.finish()
    same(run, calm)
    disturbed, undisturbed = (read_state(newest_good(str(each.folder))) for each in (run, calm))
    assert [v.step for v in disturbed.validations] == list(range(1, 9))
    assert disturbed.validations == undisturbed.validations
    for step in (7, 8):  # no checkpoint that is kept lacks its scores
        assert read_state(str(run.folder / checkpoint_name(step))).scores


class Chaos:
    """Faults at random on a cluster and its run."""

    def __init__(self, cluster: LocalCluster, run: ClusterRun, chance: random.Random):
        self.cluster, self.run, self.chance = cluster, run, chance
        self.draining: dict[str, float] = {}  # node -> when it goes

    def fault(self) -> str:
        """Let something happen that can happen now; returns what."""
        nodes = [node for node in self.cluster.nodes if node.name not in self.draining]
        faults = (
            ["driver", "checkpoint", "join"]
            if len(self.cluster.nodes) < 2
            else ["driver", "checkpoint"]
        )
        if len(nodes) > 1:
            faults += ["kill", "kill", "drain", "drain"]
        what = self.chance.choice(faults)
        getattr(self, what)(*([self.chance.choice(nodes)] if what in ("kill", "drain") else []))
        return what

    def driver(self) -> None:
        self.run.kill_driver()
        time.sleep(self.chance.uniform(0, 5))
        self.run.start()

    def checkpoint(self) -> None:
        """The newest checkpoint is damaged, and the driver dies before there is another one."""
        found = sorted(self.run.folder.glob("checkpoint_*/g.safetensors"))
        if len(found) > 1:
            os.truncate(found[-1], found[-1].stat().st_size // 2)
        self.driver()

    def join(self) -> None:
        self.cluster.add_node()

    def kill(self, node: Node) -> None:
        self.cluster.kill_node(node)

    def drain(self, node: Node) -> None:
        seconds = self.chance.randint(10, 40)
        self.cluster.drain_node(node, seconds)
        self.draining[node.name] = time.monotonic() + seconds

    def reclaim(self) -> None:
        """Nodes whose time is up go."""
        for node in list(self.cluster.nodes):
            if time.monotonic() > self.draining.get(node.name, float("inf")):
                del self.draining[node.name]
                self.cluster.kill_node(node)
        if not self.cluster.nodes:
            self.cluster.add_node()


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_chaos(shards, tmp_path):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    minutes = float(os.environ.get("CHAOS_MINUTES", "20"))
    print(f"\nseed {seed}, {minutes} minutes")
    chance, steps = random.Random(seed), int(12 * minutes)
    with LocalCluster(workers=2) as cluster:
        with run_of(
            cluster, tmp_path, shards, "calm", train__max_steps=steps, scaling__num_workers=2
        ) as calm:
            calm.finish(timeout=1500)
        options = {"train__max_steps": steps, "scaling__max_failures": -1}
        with run_of(cluster, tmp_path, shards, "stormy", **options) as run:
            run.wait_for(1)
            chaos, end, happened = Chaos(cluster, run, chance), time.monotonic() + 60 * minutes, []
            calm_until = time.monotonic()
            while run.driver.poll() is None and time.monotonic() < end:
                chaos.reclaim()
                if time.monotonic() > calm_until:
                    happened.append(chaos.fault())
                    print(f"step {run.last_step()}: {happened[-1]}", flush=True)
                    calm_until = time.monotonic() + chance.uniform(5, 45)
                time.sleep(0.2)
            if not cluster.nodes:
                cluster.add_node()
            run.finish(timeout=1500)
        print(
            f"{len(happened)} faults: "
            f"{sorted((what, happened.count(what)) for what in set(happened))}"
        )
        same(run, calm)
        log = (run.folder / "logs/rank-0.log").read_text()
        assert not re.search(r"Traceback", log)
