"""What a process cannot do without lives on its node: no other node that goes takes it away, or is kept by it."""

import json
import sys

from tests.test_house import ROOT
from tools.local_cluster import LocalCluster

MAKES = """
import json, sys
from types import SimpleNamespace

import ray
from ray._private.state import state

from data.config import DataConfig
from data.epoch_plan import Position
from data.pipeline import MicroBatchStream, StreamSpec
from job.config import Config, RunConfig
from tuning import trial

def train(cfg, callbacks):
    made.append(callbacks[0].queue.actor)

ray.init(log_to_driver=False)
spec = StreamSpec(DataConfig(), "", seed=0, micro_batches_per_step=1, segment_frames=1)
made = [MicroBatchStream(spec, Position(), 0, 0, 1, share=lambda thing: thing).pace for _ in range(6)]
trial.train = train
trial.tune = SimpleNamespace(get_context=lambda: SimpleNamespace(get_trial_id=lambda: "one"), report=print)
for _ in range(2):
    trial.train_in_one_go({}, trial.TrialConfig(Config(run=RunConfig("all", sys.argv[1])), "eval/mel"))
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
