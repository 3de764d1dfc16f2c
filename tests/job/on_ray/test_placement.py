"""What a process needs lives on its node: losing another node does not take it away."""

import json
import sys

import pytest

from tests.test_house import ROOT
from tools.local_cluster import LocalCluster

pytestmark = pytest.mark.cluster

MAKES = """
import json, sys
from types import SimpleNamespace

import ray

from data.config import DataConfig
from data.stream.collectives import alone
from data.stream.datasets import Datasets
from data.stream.spec import StreamSpec
from job.on_ray.private import cluster_state as state
from job.settings.config import Config, RunSettings
from tuning import trial

def train(cfg, callbacks):
    made.append(callbacks[0].queue.actor)

ray.init(log_to_driver=False)
spec = StreamSpec.of_new_run(DataConfig(), "", seed=0, micro_batches_per_step=1, segment_frames=1)
made = [Datasets(spec, 0, 0, 1, alone).pace for _ in range(6)]
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


def test_actors_of_one_process_are_on_its_node(tmp_path):
    script = tmp_path / "makes.py"
    script.write_text(MAKES)
    with LocalCluster(workers=1) as cluster:
        done = cluster.run(
            ["env", f"PYTHONPATH={ROOT}", sys.executable, str(script), str(tmp_path)], timeout=200
        )
    assert done.returncode == 0, done.stderr
    nodes, own = json.loads(done.stdout.splitlines()[-1])
    assert nodes == [own] * 8
