"""Jobs on a `ray start --head` cluster: what is uploaded, shown, and outlives the terminal."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus

from job.submit import connect, main
from tests.job.conftest import arguments, metrics
from tests.test_house import PACKAGES, ROOT
from tools.local_cluster import LocalCluster

UPLOAD_BYTES = 16 * 2**20  # half of it dictionaries, half the demo corpus; Ray takes 100 MiB


@pytest.mark.processes
def test_the_upload_is_small_and_whole(tmp_path, monkeypatch):
    """Ray uploads code, presets, dictionaries and the demo corpus, and nothing else."""
    monkeypatch.chdir(ROOT)
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=[])
    assert package.stat().st_size < UPLOAD_BYTES
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", package], capture_output=True, text=True
    ).stdout
    names = {line.split()[0] for line in listed.splitlines()[1:]}
    for package_name in PACKAGES:
        sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / package_name).rglob("*.py")}
        assert sources <= names
    corpus = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "job/presets").rglob("*") if p.is_file()
    }
    assert corpus <= names
    assert "requirements.lock" in names  # job.doctor compares with it
    assert not [
        name
        for name in names
        if name.startswith((".git/", ".venv", "tests/", "docs/", "runs/", "shards/"))
    ]


def test_no_cluster_is_told_with_what_to_do():
    with pytest.raises(
        ValueError,
        match=r"no cluster answers at http://127\.0\.0\.1:9: .*ray dashboard cluster\.yaml",
    ):
        connect("http://127.0.0.1:9")


@pytest.mark.parametrize("given", [None, "7"])
def test_a_job_gets_the_time_to_save_when_it_is_stopped(given, monkeypatch):
    class Client:
        def submit_job(self, entrypoint: str, runtime_env: dict) -> str:
            submitted.append(runtime_env)
            return "job"

        async def tail_job_logs(self, job: str):
            yield "a line\n"

        def get_job_status(self, job: str) -> JobStatus:
            return JobStatus.SUCCEEDED

    submitted: list[dict] = []
    monkeypatch.setattr("job.submit.connect", lambda address: Client())
    if given:
        monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", given)
    assert main(["--", "job.train"]) == 0
    seconds = submitted[0]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert seconds == given if given else int(seconds) >= 60


class Submitted:
    """`python -m job.submit` on the head of a cluster; what it prints."""

    def __init__(self, cluster: LocalCluster, log: Path, *argv: str):
        self.log = log
        command = [sys.executable, "-m", "job.submit", "--address", cluster.dashboard, "--", *argv]
        self.process = cluster.start(command, log)

    def wait_for(self, words: str, timeout: float = 240) -> str:
        deadline = time.monotonic() + timeout
        while words not in (text := self.log.read_text()):
            assert self.process.poll() is None, f"it ended without {words!r}:\n{text[-4000:]}"
            assert time.monotonic() < deadline, f"no {words!r}:\n{text[-4000:]}"
            time.sleep(0.2)
        return text

    def ended(self, timeout: float = 240) -> int:
        return self.process.wait(timeout)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=0, dashboard=True) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_outlives_its_terminal(cluster, shards, tmp_path):
    argv = arguments(
        shards, tmp_path / "runs", run__name="a", train__max_steps=8, train__log_every_steps=1
    )
    first = Submitted(cluster, tmp_path / "first.log", "job.train", *argv)
    first.wait_for("step 1/8")  # rank 0's log, as it comes
    first.process.send_signal(signal.SIGINT)
    assert first.ended(30) == 130
    told = first.log.read_text()
    assert "The job continues without this terminal" in told
    follow = (
        next(line for line in told.splitlines() if "follow it:" in line).partition(":")[2].split()
    )
    stop = next(line for line in told.splitlines() if "stop it:" in line).partition(":")[2].split()
    assert (follow[:3], stop[:3]) == (["ray", "job", "logs"], ["ray", "job", "stop"])
    ray = str(Path(sys.executable).parent / "ray")
    followed = cluster.run([ray, *follow[1:]], timeout=240)
    assert "step 8 of 8" in followed.stdout, followed.stdout[-3000:] + followed.stderr[-2000:]
    assert [line["step"] for line in metrics(tmp_path / "runs/a")] == list(range(1, 9))
    again = Submitted(cluster, tmp_path / "again.log", "job.train", *argv)
    assert again.ended() == 0
    assert "the run a is finished" in again.log.read_text()
    listed = cluster.run([sys.executable, "-m", "job.runs", str(tmp_path / "runs")])
    assert listed.stdout.splitlines()[1].split()[:3] == ["a", "finished", "8"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_that_fails_says_so(cluster, shards, tmp_path):
    argv = arguments(shards, tmp_path, run__name="a", scaling__num_workers=99)
    failing = Submitted(cluster, tmp_path / "failing.log", "job.train", *argv)
    assert failing.ended() == 1
    assert "error: scaling.num_workers 99 is more than the plan can feed" in failing.log.read_text()
    doctor = Submitted(cluster, tmp_path / "doctor.log", "job.doctor", *argv)
    assert doctor.ended() == 1
    assert "not fit: configuration" in doctor.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rays_own_command_does_as_well(cluster, shards, tmp_path):
    ray = str(Path(sys.executable).parent / "ray")
    options = arguments(shards, tmp_path, run__name="a", train__max_steps=2)
    argv = [
        ray,
        "job",
        "submit",
        "--address",
        cluster.dashboard,
        "--working-dir",
        ".",
        "--",
        "python",
        "-m",
        "job.train",
    ]
    done = cluster.run([*argv, *options], timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "step 2 of 2" in done.stdout
    assert json.loads((tmp_path / "a/metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_is_submitted_like_any_other_job(cluster, shards, tmp_path):
    options = {"scaling__num_workers": 1, "train__micro_batches_per_step": 2, "train__max_steps": 2}
    options |= {
        "eval__every_steps": 1,
        "train__checkpoint__every_steps": 1,
        "metric": "eval/mel",
        "trials": 2,
    }
    argv = arguments(
        shards, tmp_path / "runs", run__name="s", space="reconstruction", schedule="none", **options
    )
    submitted = Submitted(cluster, tmp_path / "sweep.log", "tuning.sweep", *argv)
    assert submitted.ended(800) == 0, submitted.log.read_text()[-4000:]
    printed, sweep = submitted.log.read_text(), tmp_path / "runs/s-sweep"
    assert "running" in printed  # the table, as it goes
    trials = list(csv.DictReader((sweep / "trials.csv").open()))
    assert [(trial["status"], trial["step"]) for trial in trials] == [("finished", "2")] * 2
    for trial in trials:
        assert [line["step"] for line in metrics(sweep / "runs" / trial["trial"])] == [1, 2]
    assert yaml.safe_load((sweep / "best.yaml").read_text())["run"]["name"] == "s-best"
