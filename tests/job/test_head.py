"""The head of a cluster is lost with the job that it runs, and comes back."""

import sys
import time

import pytest

from tests.job.test_elastic import OPTIONS, same
from tools.cluster_run import DEMO, ClusterRun
from tools.local_cluster import LocalCluster

STEPS = 8
ONE_WORKER = OPTIONS | {"scaling.num_workers": 1, "scaling.worker_resources": "{}"}


class SubmittedRun(ClusterRun):
    """A run whose driver is a job of the head; what is started here follows it."""

    def start(self) -> None:
        argv = [part for key, value in self.options.items() for part in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "job.submit", "--retry", "1", "--submission-id", "mine"]
        command += ["--address", self.cluster.dashboard, "--", "job.train", "--config", DEMO]
        self.driver = self.cluster.start([*command, *argv], self.output)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_goes_on_when_its_head_is_back(shards, tmp_path):
    options = ONE_WORKER | {"data.shards": shards, "train.max_steps": STEPS}
    with LocalCluster(workers=0, dashboard=True) as cluster:
        with SubmittedRun(cluster, tmp_path, "run", options) as run:
            run.wait_for(6)
            cluster.kill_head()
            time.sleep(3)
            cluster.start_head_again()
            run.finish(timeout=280)
        with ClusterRun(cluster, tmp_path, "calm", options) as calm:
            calm.finish()
    told = run.output.read_text()
    assert "the head does not answer: waits until it is back" in told
    assert "job mine was lost with the head: it is submitted again" in told
    assert "job mine-2: succeeded" in told
    assert "Traceback" not in told
    resumed = [event.step for event in run.events() if event.kind == "resume"]
    assert resumed == [0, 5]
    same(run, calm)
