"""The last three releases of Ray: those of pyproject.toml's range train, the others are refused.

They are installed over this environment's, each into a folder that goes with the test: its other
packages are those of the locks.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from job.on_ray.private.releases import BEFORE, FIRST
from tests.job.conftest import DEMO, ROOT, Command, arguments

# 2.58 has all names too; no run of it has been compared yet
RELEASES = ["2.58", "2.59", "2.60"]
IMPORTS = """
import importlib, pkgutil, sys
import ray
import job.on_ray.private
assert "torch" not in sys.modules
for each in pkgutil.walk_packages(job.__path__, "job."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
# those of job/spot.py
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
print(ray.__version__)
"""
RESULT = """
import sys
from job.on_ray.private import Result
result = Result.from_path(sys.argv[1])
found = [checkpoint.path for checkpoint, _ in result.best_checkpoints]
print(result.metrics["step"], len(found))
"""
ELASTIC = {
    "scaling__num_workers": [1, 2],
    "train__max_steps": 2,
    "train__micro_batches_per_step": 2,
    "train__reduction": "exact",
    "train__checkpoint__every_steps": 1,
}


@pytest.fixture(scope="module", params=RELEASES)
def with_release(request, environment, tmp_path_factory) -> tuple[str, dict[str, str]]:
    """A release, and the environment of commands that run with it."""
    release = request.param
    folder = tmp_path_factory.mktemp(f"ray-{release}")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(folder)]
    pip = [sys.executable, "-m", "pip", "install", *options, f"ray=={release}.*"]
    subprocess.run(pip, check=True, timeout=300)
    return release, environment | {"PYTHONPATH": f"{folder}:{ROOT}"}


def said(script: str, env: dict[str, str], *argv: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, argv)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def parameters(command, shards, tmp_path_factory) -> Callable[[Command], str]:
    """Digest of the parameters of an elastic run."""

    def of(run: Command) -> str:
        storage = tmp_path_factory.mktemp("runs")
        done = run("job.train", *arguments(shards, storage, run__name="run", **ELASTIC))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        metrics, checkpoints = said(RESULT, run.env, storage / "run").split()
        assert metrics == "2"
        assert int(checkpoints) >= 1
        log = (storage / "run/logs/rank-0.log").read_text()
        assert "2 workers" in log
        return log.rpartition("done; parameters ")[2].split()[0]

    return of


@pytest.fixture(scope="module")
def expected(command, parameters) -> str:
    return parameters(command)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_release_trains_the_same_or_is_refused(with_release, parameters, expected):
    release, env = with_release
    if FIRST <= tuple(map(int, release.split("."))) < BEFORE:
        assert said(IMPORTS, env).startswith(f"{release}.")
        assert parameters(Command(env)) == expected
    else:
        done = Command(env)("job.train", "--config", str(DEMO))
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"Ray {release}." in line
        assert "runs with 2.59 to 2.60: install that" in line


def test_the_whole_range_is_among_them():
    supported = [f"{FIRST[0]}.{minor}" for minor in range(FIRST[1], BEFORE[1])]
    assert RELEASES[-len(supported) :] == supported
