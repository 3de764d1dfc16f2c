"""A run that is stopped saves itself within a step, and continues with the same bits."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from job.runs import main as list_runs
from tests.job.conftest import ROOT, arguments, metrics

STEP = re.compile(r" step (\d+)/")
NEVER = 10_000  # steps: no checkpoint is due before the run is stopped


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


def parameters(run: Path) -> str:
    log = (run / "logs/rank-0.log").read_text()
    return re.findall(r"parameters ([0-9a-f]{64})", log)[-1]


def losses(run: Path) -> list[dict]:
    wanted = ("loss", "step", "consumed", "grad_norm")
    return [{k: v for k, v in line.items() if k.startswith(wanted)} for line in metrics(run)]


def state_of(run: Path, capsys) -> str:
    capsys.readouterr()
    assert list_runs([str(run.parent)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return next(line[1] for line in lines if line[0] == run.name)


def test_ctrl_c_saves_within_a_step_and_the_same_command_continues(
    command, train, shards, tmp_path, capsys
):
    options = {"train__reduction": "exact", "train__log_every_steps": 1, "train__max_steps": NEVER}
    options |= {"train__checkpoint__every_steps": NEVER, "eval__every_steps": NEVER}
    run = tmp_path / "stopped"
    argv = arguments(shards, tmp_path, run__name="stopped", **options)
    terminal = Terminal(command, tmp_path / "terminal.log", *argv)
    terminal.wait_for_step(2)
    assert state_of(run, capsys) == "running"
    step_s = metrics(run)[-1]["seconds"] if metrics(run) else 0.0
    begin = time.monotonic()
    terminal.interrupt()
    assert terminal.process.wait(60) == 128 + signal.SIGINT, terminal.log.read_text()[-4000:]
    took = time.monotonic() - begin
    said = terminal.log.read_text()
    stopped = int(re.search(r"stopped at step (\d+), saved", said)[1])
    print(f"\nstopped at step {stopped} {took:.1f} s after Ctrl-C, a step takes {step_s:.1f} s")
    assert "Traceback" not in said
    assert state_of(run, capsys) == "stopped"
    assert (run / f"checkpoint_{stopped:09d}").is_dir()

    options["train__max_steps"] = stopped + 2
    train(tmp_path, run__name="stopped", **options)
    assert f"resumes at step {stopped} from" in (run / "logs/rank-0.log").read_text()
    assert state_of(run, capsys) == "finished"
    train(tmp_path, run__name="calm", **options)
    assert parameters(run) == parameters(tmp_path / "calm")
    assert losses(run) == losses(tmp_path / "calm")
