"""Ray's workers in tests are forks, where a fork is the process that was asked for."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import forking
from tests.forked import HOOK, SERVER
from tests.forked.server import settings_of

pytestmark = pytest.mark.processes  # the server, at least

READY_WITHIN_S = 120
DEAD_WITHIN_S = 60
# stands for Ray's worker: the hook knows it by the end of its path
WORKER = """\
import json, os, signal, sys, time
if sys.argv[1] == "die":
    os.kill(os.getpid(), signal.SIGTERM)
if sys.argv[1] == "last":
    print(os.getpid(), flush=True)
    time.sleep(600)
print(json.dumps([sys.argv, "torch" in sys.modules, os.environ.get("COLOUR"), os.getcwd()]))
print("an error", file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Path:
    """A script at a path like that of Ray's workers."""
    path = tmp_path_factory.mktemp("site") / "ray/_private/workers/default_worker.py"
    path.parent.mkdir(parents=True)
    path.write_text(WORKER)
    return path


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    """The server has its imports."""
    forking.have()
    deadline = time.monotonic() + READY_WITHIN_S
    while not forking.socket.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def run(worker: Path, what: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(worker), what],
        env=os.environ | environment,
        cwd=worker.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_fork_is_told_all_and_tells_all(worker):
    done = run(worker, "work", COLOUR="red")
    argv, has_torch, colour, folder = json.loads(done.stdout)
    assert has_torch
    assert (argv, colour, folder) == ([str(worker), "work"], "red", str(worker.parent))
    assert (done.returncode, done.stderr) == (3, "an error\n")
    assert run(worker, "die").returncode == -15


def test_a_fork_dies_with_the_process_that_raylet_knows(worker):
    argv = [sys.executable, str(worker), "last"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asked:
        fork = asked.stdout.readline().strip()
        assert int(fork) != asked.pid
        asked.kill()
    deadline = time.monotonic() + DEAD_WITHIN_S
    while Path(f"/proc/{fork}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "7"}, {SERVER: "/nowhere"}])
def test_what_a_fork_cannot_be_is_a_process_of_its_own(worker, environment):
    done = run(worker, "work", **environment)
    assert not json.loads(done.stdout)[1]
    assert done.returncode == 3


def test_what_is_read_at_the_start_is_compared():
    ours = {"HOME": "/a", "PYTHONPATH": "/b", "OMP_NUM_THREADS": "1", "LANG": "C"}
    assert settings_of(ours) == settings_of({"LANG": "C", "PYTHONPATH": str(HOOK)})
    assert settings_of(ours) != settings_of({"LANG": "de_DE.ISO-8859-1"})
    assert settings_of(ours) != settings_of(ours | {"PYTHONHASHSEED": "3"})


@pytest.mark.usefixtures("ray_local")
def test_workers_of_the_shared_ray_are_forks():
    import ray

    @ray.remote(num_cpus=0)
    def is_fork() -> bool:
        return os.getppid() != int(os.environ["RAY_RAYLET_PID"])

    assert ray.get(is_fork.remote())
