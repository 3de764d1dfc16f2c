"""A run that is stopped saves itself within a step, and continues with the same bits."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from job.runs import main as list_runs
from tests.job.conftest import DEMO, OVER_AN_EPOCH, ROOT, arguments, metrics
from tools.cluster_run import ClusterRun, Event
from tools.local_cluster import RAY, LocalCluster

STEP = re.compile(r" step (\d+)/")
# settings with which a run that has a checkpoint cannot continue, and what is said
REFUSED = [
    (["--model.hidden_channels", "32"], r"g\.safetensors is of another architecture"),
    (["--model.slm.initial_channel", "16"], r"wd\.safetensors is of another architecture"),
    (["--train.segment_size", "5120000"], "no utterance of the training split has 10000 frames"),
    (
        ["--data.plan.mode", "buckets", "--data.plan.bucket_boundaries", "[1, 2]"],
        "no utterance lies within data.plan.bucket_boundaries",
    ),
]


class Terminal:
    """`job.train` in a process group of its own, as a shell starts it; what it prints."""

    def __init__(self, command, log: Path, *argv: str):
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "job.train", *argv],
                cwd=ROOT,
                env=command.env,
                stdout=out,
                stderr=out,
                process_group=0,
            )

    def step(self) -> int:
        """The last step that was shown."""
        return int((STEP.findall(self.log.read_text()) or [0])[-1])

    def wait_for_step(self, step: int, timeout: float = 200) -> None:
        deadline = time.monotonic() + timeout
        while self.step() < step:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Type Ctrl-C: all processes of the group get the signal."""
        os.killpg(self.process.pid, signal.SIGINT)


def losses(run: Path) -> list[dict]:
    wanted = ("loss", "step", "consumed", "grad_norm")
    return [{k: v for k, v in line.items() if k.startswith(wanted)} for line in metrics(run)]


def log_of(run: Path) -> str:
    return (run / "logs/rank-0.log").read_text()


def parameters(run: Path) -> str:
    return re.findall(r"parameters ([0-9a-f]{64})", log_of(run))[-1]


def state_of(run: Path, capsys) -> str:
    capsys.readouterr()
    assert list_runs([str(run.parent)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return next(line[1] for line in lines if line[0] == run.name)


def test_ctrl_c_saves_and_the_same_command_continues_which_no_refused_start_disturbs(
    command, call, two_workers, shards, tmp_path, capsys
):
    run = tmp_path / "stopped"
    same_as = OVER_AN_EPOCH | {"train__checkpoint__every_steps": 6, "eval__every_steps": 6}
    same_as |= {"eval__syntheses": 1, "train__ema_decay": 0.9, "train__log_every_steps": 1}
    argv = arguments(shards, tmp_path, run__name=run.name, **same_as)
    first = Terminal(command, tmp_path / "first.log", *argv)
    first.wait_for_step(1)
    assert state_of(run, capsys) == "running"
    begin = time.monotonic()
    first.interrupt()
    assert first.process.wait(100) == 128 + signal.SIGINT, first.log.read_text()[-4000:]
    said = first.log.read_text()
    stopped = int(re.search(r"^stopped at step (\d+), saved: the same command", said, re.M)[1])
    with capsys.disabled():
        print(f"\nstopped at step {stopped} {time.monotonic() - begin:.1f} s after Ctrl-C")
    assert "Traceback" not in said
    assert state_of(run, capsys) == "stopped"
    assert stopped < 6, "a checkpoint was due"
    assert (run / f"checkpoint_{stopped:09d}").is_dir()

    again = Terminal(command, tmp_path / "again.log", *argv)
    again.wait_for_step(stopped + 1)
    before = {name: (run / name).read_bytes() for name in ("config.yaml", "owner.txt")}
    for refused, words in REFUSED:
        done = call("job.train", *argv, *refused)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert re.search(words, done.stderr)
    assert {name: (run / name).read_bytes() for name in before} == before
    assert again.process.wait(200) == 0, again.log.read_text()[-4000:]
    assert "step 6 of 6" in again.log.read_text()
    assert f"resumes at step {stopped} from" in log_of(run)
    assert state_of(run, capsys) == "finished"
    assert parameters(run) == parameters(two_workers)
    assert losses(run) == losses(two_workers)


@pytest.mark.parametrize(("refused", "words"), REFUSED)
def test_a_start_that_is_refused_touches_nothing(
    call, two_workers, shards, tmp_path, monkeypatch, refused, words
):
    monkeypatch.setattr("job.on_ray.cluster.ray_session", lambda _: pytest.fail("it asks for Ray"))
    run = tmp_path / two_workers.name
    shutil.copytree(two_workers, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    argv = arguments(shards, tmp_path, run__name=run.name, train__max_steps=20)
    done = call("job.train", *argv, *refused)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert re.search(words, done.stderr)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_new_run_that_cannot_begin_leaves_nothing(call, shards, tmp_path):
    argv = arguments(shards, tmp_path, run__name="new", train__init_from=tmp_path / "nothing")
    done = call("job.train", *argv)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "train.init_from" in done.stderr
    assert list(tmp_path.iterdir()) == []


def submitted(cluster: LocalCluster, run: ClusterRun, job: str) -> None:
    """Submit a training by Ray's own command, which gives its driver three seconds to end."""
    options = [part for key, value in run.options.items() for part in (f"--{key}", str(value))]
    argv = [RAY, "job", "submit", "--no-wait", "--address", cluster.dashboard]
    argv += ["--submission-id", job, "--working-dir", str(ROOT)]
    argv += ["--", "python", "-m", "job.train", "--config", str(DEMO), *options]
    done = cluster.run(argv, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def events(run: ClusterRun, kind: str) -> list[Event]:
    return [event for event in run.events() if event.kind == kind]


def until(reached: Callable[[], object], what: str, timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, f"no {what} after {timeout} s"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_stopped_job_and_a_stopped_terminal_lose_no_step_and_give_way_at_once(
    shards, tmp_path, capsys
):
    options = {"train.segment_size": 4096, "data.plan.max_frames": 500, "eval.samples": 0}
    options |= {"eval.max_utterances": 1, "eval.syntheses": 0, "eval.every_steps": 10_000}
    options |= {"train.micro_batches_per_step": 2, "train.reduction": "exact"}
    options |= {"train.checkpoint.every_steps": 50, "train.max_steps": 10_000}
    options |= {"data.shards": shards, "scaling.num_workers": 2}
    with LocalCluster(workers=2, head_cpus=4, dashboard=True) as cluster:
        job = ClusterRun(cluster, tmp_path, "job", options)
        submitted(cluster, job, "first")
        until(lambda: job.last_step() >= 2, "step of the job")
        with ClusterRun(cluster, tmp_path, "terminal", options) as terminal:
            until((terminal.folder / "status.json").exists, "waiting driver")
            time.sleep(5)
            stop = cluster.run([RAY, "job", "stop", "--address", cluster.dashboard, "first"])
            assert stop.returncode == 0, stop.stdout + stop.stderr
            until(lambda: events(job, "saved"), "saved step of the job", 60)
            saved = events(job, "saved")[-1]
            until(lambda: events(terminal, "start"), "workers of the second run", 60)
            pid = int(events(terminal, "start")[0].text.split()[2])
            waited = psutil.Process(pid).create_time() - saved.time
            said = cluster.run([RAY, "job", "logs", "--address", cluster.dashboard, "first"]).stdout
            assert saved.step == job.last_step() < 50
            assert state_of(job.folder, capsys) == "stopped"

            terminal.wait_for(3)
            step_s = terminal.losses() and metrics(terminal.folder)[-1]["seconds"]
            begin = time.monotonic()
            terminal.driver.send_signal(signal.SIGINT)
            until(lambda: "saved: the same" in terminal.output.read_text(), "word of the end", 60)
            took = time.monotonic() - begin
            assert terminal.driver.wait(60) == 128 + signal.SIGINT, terminal.output.read_text()
            stopped = terminal.last_step()
            assert f"stopped at step {stopped}, saved" in terminal.output.read_text()
            with capsys.disabled():
                print(f"\njob stopped at {saved.step}; the next workers {waited:.1f} s later")
                print("its output: " + " | ".join(said.splitlines()[-3:]))
                print(f"terminal stopped at {stopped} after {took:.1f} s, a step takes {step_s} s")

            for run in (job, terminal):
                run.options["train.max_steps"] = run.last_step() + 2
                run.start()
                run.finish()
                resumed = events(run, "resume")[-1].step
                assert resumed == run.options["train.max_steps"] - 2  # nothing is done again
                assert [line["step"] for line in run.losses()] == list(range(1, resumed + 3))
    assert waited < 10
    assert took < 5 + step_s
