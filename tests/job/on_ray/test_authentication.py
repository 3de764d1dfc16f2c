"""Token authentication: local runs leave nothing of it, clusters that ask get the token."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.exceptions import AuthenticationError

from job.settings.cli import run
from job.submit.command import main
from tests.job.conftest import ROOT
from tests.job.test_elastic import OPTIONS
from tools.cluster_run import DEMO
from tools.local_cluster import LocalCluster

LOCAL = """
import ray
from job.on_ray.cluster import ray_session
from tests.tiny import demo_config
with ray_session(demo_config()):
    print("computed", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""
TOKEN = "0123456789abcdef" * 4


@pytest.mark.cluster
def test_a_local_run_leaves_no_token(environment, tmp_path):
    env = {key: value for key, value in environment.items() if not key.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL],
        cwd=ROOT,
        env=env | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "computed 42" in done.stdout, done.stderr[-3000:]
    assert not (tmp_path / ".ray/auth_token").exists()
    assert "Token authentication" not in done.stderr


def test_a_cluster_that_does_not_know_us_is_told_in_a_line(monkeypatch, capsys):
    def refuses(address):
        raise AuthenticationError("Unauthorized:\nMissing authentication token")

    monkeypatch.setattr("job.submit.client.JobSubmissionClient", refuses)
    monkeypatch.setattr(sys, "argv", ["job.submit", "--address", "http://head", "--", "job.train"])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the cluster at http://head asks for its token: set RAY_AUTH_MODE=token" in line
    assert "Missing authentication token" in line


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster that asks for TOKEN: a head and a worker node."""
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with LocalCluster(workers=1, dashboard=True, env=env) as started:
        yield started


def submitted(cluster: LocalCluster, home: Path, **env: str) -> subprocess.CompletedProcess:
    """Have the cluster print the help of job.runs, from a home that has no token."""
    home.mkdir(exist_ok=True)
    own = {k: v for k, v in cluster.env.items() if not k.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "job.submit", "--address", cluster.dashboard]
    return subprocess.run(
        [*cluster.head.prefix, *command, "--", "job.runs", "--help"],
        cwd=ROOT,
        env=own | {"HOME": str(home)} | env,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_asks_for_its_token_serves_those_who_have_it(cluster, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    for refused in (
        submitted(cluster, tmp_path / "none"),
        submitted(cluster, tmp_path / "none", RAY_AUTH_MODE="token"),
        submitted(cluster, tmp_path / "other", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64),
    ):
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert "asks for its token: set RAY_AUTH_MODE=token" in refused.stderr
        assert "Traceback" not in refused.stderr
    done = submitted(
        cluster, tmp_path / "home", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(file)
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    assert "usage: python -m job.runs" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_and_the_watcher_of_notices_have_the_token_too(cluster, shards, tmp_path):
    options = OPTIONS | {
        "data.shards": shards,
        "run.storage": tmp_path,
        "run.name": "small",
        "train.max_steps": 1,
        "eval.every_steps": 1,
        "scaling.num_workers": 1,
        "scaling.worker_resources": '{"trainer": 1}',
    }
    argv = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    argv += ["--space", "loss_weights", "--metric", "eval/mel", "--schedule", "none"]
    command = [sys.executable, "-m", "tuning.sweep", "--config", DEMO, *argv]
    swept = cluster.run([*command, "--trials", "1", "--at-once", "1"], timeout=280)
    assert swept.returncode == 0, swept.stdout[-2000:] + swept.stderr[-2000:]
    assert (tmp_path / "small-sweep/best.yaml").exists()
    assert TOKEN not in swept.stdout + swept.stderr

    going = cluster.nodes[-1]
    watch = [sys.executable, "-m", "job.spot", "--cloud", "none", "--node-ip", going.address]
    refused = subprocess.run(
        [*going.prefix, "env", "-u", "RAY_AUTH_TOKEN", f"HOME={tmp_path}", *watch],
        env=cluster.command_env(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert refused.stderr.splitlines()[-1].startswith("error: the cluster asks for its token")
    assert "Traceback" not in refused.stderr

    log = tmp_path / "spot.log"
    watcher = cluster.start_on(going, watch, log)
    while "watches SIGTERM" not in log.read_text():
        assert watcher.poll() is None, log.read_text()
        time.sleep(0.1)
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(60) == 0, log.read_text()
    assert "is drained" in log.read_text()
    assert TOKEN not in log.read_text()
