"""Storage fails under a run: it ends right, or stops with its state intact and one line."""

import os
import re
import signal
import subprocess
from pathlib import Path

import fsspec
import pytest
from ray.train import Result

from tests.job.conftest import arguments, metrics
from tests.job.on_ray.test_results import listed
from trainable.run.format import step_of
from trainable.run.logs import log_path
from trainable.run.metrics_file import read_metrics
from trainable.run.storage import checkpoints, newest_good

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
OPTIONS = {
    "train__reduction": "exact",
    "train__checkpoint__every_steps": 2,
    "train__log_every_steps": 1,
    "eval__every_steps": 4,
    "scaling__num_workers": 2,
}


def parameters(log: str) -> str:
    return re.findall(r"parameters ([0-9a-f]{64})", log)[-1]


def losses(lines: list[dict]) -> list[dict]:
    return [
        {k: v for k, v in line.items() if k.startswith(("step", "loss", "consumed"))}
        for line in lines
    ]


def test_a_worker_killed_amid_an_upload_to_a_store_that_answers_503_to_a_third(
    command, shards, store, train, tmp_path
):
    """Same final parameters as a calm run; every step has its line; no half checkpoint stays."""
    train(tmp_path, run__name="run", train__max_steps=8, **OPTIONS)
    run, killed = "s3://bucket/runs/run", []

    def kill_the_writer(request: str) -> None:
        if not killed and re.match("P.*/checkpoint_000000004/d.safetensors", request):
            killed.append(
                int(re.findall(r"rank 0 INFO pid (\d+)", log_path(run, 0).read_text())[-1])
            )
            os.kill(killed[0], signal.SIGKILL)

    store.share, store.seen = 1 / 3, kill_the_writer
    done = command(
        "job.train",
        *arguments(shards, "s3://bucket/runs", run__name="run", train__max_steps=8, **OPTIONS),
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    store.share = 0.0
    print(f"{store.failed} of {len(store.requests)} requests were answered 503")
    assert killed
    log = fsspec.filesystem("s3").cat_file("bucket/runs/run/logs/rank-0.log").decode()
    assert re.search("resumes at step [23]", log)
    assert parameters(log) == parameters((tmp_path / "run/logs/rank-0.log").read_text())
    ours, theirs = read_metrics(run), metrics(tmp_path / "run")
    losses = [
        [
            {k: v for k, v in line.items() if k.startswith(("step", "loss", "consumed"))}
            for line in lines
        ]
        for lines in (ours, theirs)
    ]
    assert losses[0] == losses[1]
    complete = {step_of(uri) for uri in checkpoints(run)}
    there = {
        int(path[-9:]) for path in fsspec.filesystem("s3").glob("bucket/runs/run/checkpoint_0*")
    }
    assert complete == there
    assert listed(Result.from_path(run)) == sorted(complete)


def test_a_store_that_goes_away_stops_the_run_with_one_line(command, shards, store, monkeypatch):
    """After a bounded time, without restarts; the same command resumes from the last good state."""
    monkeypatch.setitem(command.env, "AWS_MAX_ATTEMPTS", "2")
    argv = arguments(
        shards,
        "s3://bucket/runs",
        run__name="run",
        train__max_steps=12,
        train__checkpoint__retry_s=2,
        **OPTIONS,
    )

    def go_away(request: str) -> None:
        if re.match("P.*/checkpoint_000000004/d.safetensors", request):
            store.share = 1.0

    store.seen = go_away
    log = log_path("s3://bucket/runs/run", 0)
    log.unlink(missing_ok=True)  # of other tests' runs of this name
    done = command("job.train", *argv)
    assert_stopped(done, "cannot be reached")
    store.share, store.seen = 0.0, lambda request: None
    assert newest_good("s3://bucket/runs/run").endswith("2")
    assert len(re.findall("pid ", log.read_text())) == 1
    assert command("job.train", *argv).returncode == 0
    assert [line["step"] for line in read_metrics("s3://bucket/runs/run")] == list(range(1, 13))


def assert_stopped(done: subprocess.CompletedProcess, why: str) -> None:
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(
        f"could not be saved: .*{why}.*last good state is the newest checkpoint", errors[0]
    )
    assert "Traceback" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_stops_the_run_with_one_line(command, shards, tmp_path):
    """And with room made, the same command goes on to the end."""
    if os.system(f"mount -t tmpfs -o size=64m none {tmp_path}"):
        pytest.skip("nothing can be mounted here")
    try:
        argv = arguments(
            shards,
            tmp_path,
            run__name="run",
            train__max_steps=12,
            train__checkpoint__retry_s=1,
            train__checkpoint__keep=100,
            **OPTIONS,
        )
        done = command("job.train", *argv)
        assert_stopped(done, "No space left on device")
        run = tmp_path / "run"
        assert newest_good(str(run))
        assert len(re.findall("pid ", (run / "logs/rank-0.log").read_text())) == 1
        os.system(f"mount -o remount,size=400m {tmp_path}")
        assert command("job.train", *argv).returncode == 0
        assert [line["step"] for line in metrics(run)] == list(range(1, 13))
        assert not list(Path(run).glob("*.part"))
    finally:
        os.system(f"umount {tmp_path}")
