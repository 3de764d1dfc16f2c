"""Numbers blow up, workers hang: the run recovers by itself and ends with the right bits."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.job.conftest import arguments, kill, metrics

pytestmark = pytest.mark.slow
EVERY = 3  # steps between checkpoints
BASE = 6  # step of the checkpoint that runs begin with
STEPS = 13
EXACT = {
    "train__reduction": "exact",
    "train__checkpoint__every_steps": EVERY,
    "train__checkpoint__keep": 9,
}


@pytest.fixture(scope="module")
def calm(train, tmp_path_factory) -> Path:
    """An undisturbed run."""
    storage = tmp_path_factory.mktemp("runs")
    train(storage, run__name="calm", train__max_steps=STEPS, scaling__num_workers=1, **EXACT)
    return storage / "calm"


def continued(calm: Path, run: Path) -> Path:
    """A run that stands where the undisturbed one stood at step BASE."""
    run.mkdir()
    for step in range(EVERY, BASE + 1, EVERY):
        shutil.copytree(calm / f"checkpoint_{step:09d}", run / f"checkpoint_{step:09d}")
    lines = (calm / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:BASE]))
    return run


def log_of(run: Path, rank: int = 0) -> str:
    return (run / f"logs/rank-{rank}.log").read_text()


def wait_for_log(
    run: Path, pattern: str, process: subprocess.Popen, rank: int = 0, timeout: float = 300
) -> re.Match:
    deadline = time.monotonic() + timeout
    while True:
        if (run / f"logs/rank-{rank}.log").exists() and (
            found := re.search(pattern, log_of(run, rank))
        ):
            return found
        assert process.poll() is None, "the command ended early"
        assert time.monotonic() < deadline, f"nothing like {pattern!r} after {timeout} s"
        time.sleep(0.1)


def parameters(run: Path) -> str:
    return re.findall(r"parameters ([0-9a-f]{64})", log_of(run))[-1]


def numbers(run: Path) -> list[dict]:
    """What must not depend on workers and kills."""
    kept = ("loss", "grad_norm", "step", "consumed", "lr", "utterances", "rolled_back")
    return [{k: v for k, v in line.items() if k.startswith(kept)} for line in metrics(run)]


def limit_of(calm: Path) -> float:
    """Return a norm that the undisturbed run exceeds one step after BASE, not before."""
    norms = [max(v for k, v in line.items() if k.startswith("grad_norm")) for line in metrics(calm)]
    for step in range(BASE + 2, STEPS):
        before, here = max(norms[BASE : step - 1]), norms[step - 1]
        if here > 1.05 * before:
            return (here + before) / 2
    raise AssertionError(f"norms fall all the time: {norms[BASE:]}")


def test_a_roll_back_has_the_same_bits_for_any_number_of_workers_and_through_a_kill(
    command, shards, calm, train
):
    storage, limit = calm.parent, limit_of(calm)
    options = EXACT | {"train__max_steps": STEPS, "train__not_finite__policy": "roll_back"}
    options |= {
        "train__not_finite__max_grad_norm": limit,
        "train__not_finite__max_roll_backs": STEPS,
    }
    one, two, killed = (continued(calm, storage / name) for name in ("one", "two", "killed"))
    train(storage, run__name="one", scaling__num_workers=1, train__log_every_steps=4, **options)
    train(storage, run__name="two", scaling__num_workers=2, train__log_every_steps=1, **options)
    process = command.start(
        "job.train",
        *arguments(shards, storage, run__name="killed", scaling__num_workers=2, **options),
    )
    try:
        wait_for_log(killed, "skips steps", process)
    finally:
        kill(process)
    train(storage, run__name="killed", scaling__num_workers=1, **options)

    said = re.findall(
        r"skips steps (\d+) to (\d+) \((\d+) utterances\), continues at step", log_of(one)
    )
    assert said
    assert int(said[0][0]) == BASE + 1
    lines = metrics(one)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    spans = {step: int(n) for first, last, n in said for step in range(int(first), int(last) + 1)}
    assert {line["step"] for line in lines if line.get("rolled_back")} == set(spans)
    first, last, passed = map(int, said[0])
    assert sum(line["utterances"] for line in lines if first <= line["step"] <= last) == passed
    assert [line["consumed"] for line in lines] == [line["consumed"] for line in metrics(calm)]
    assert re.search(
        r"step \d+: network g: loss/g/total [\d.]+, grad_norm_g [\d.]+; .* micro-batch 0 holds",
        log_of(one),
    )
    assert parameters(one) != parameters(calm)
    for other in (two, killed):
        assert numbers(other) == numbers(one)
        assert parameters(other) == parameters(one)


def test_a_worker_that_stops_is_reported_and_the_run_ends_with_the_same_bits(command, shards, calm):
    run = continued(calm, calm.parent / "hung")
    options = EXACT | {
        "train__max_steps": STEPS,
        "train__log_every_steps": 1,
        "train__hang_timeout_s": 30,
    }
    process = command.start(
        "job.train",
        *arguments(shards, calm.parent, run__name="hung", scaling__num_workers=2, **options),
    )
    stopped = None
    try:
        pid = int(wait_for_log(run, r"pid (\d+) on", process, rank=1)[1])
        wait_for_log(run, f"step {BASE + 2}/", process)
        stopped = psutil.Process(pid)
        stopped.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        table = wait_for_log(run, r"the workers hang.*\n  rank 0: (.*)\n  rank 1: (.*)\n", process)
        print(f"\nreported after {time.monotonic() - begin:.0f} s: {table[1]}; {table[2]}")
        assert re.match(r"step \d+, in \w+\.\w+:\d+ \(\w+\), \d+ s", table[1])
        assert table[2].startswith("no report")
        wait_for_log(run, r"(?s)the workers hang.*resumes at step", process)
        print(f"goes on after {time.monotonic() - begin:.0f} s; stopped worker: {status(stopped)}")
        process.wait(300)
        print(f"ended after {time.monotonic() - begin:.0f} s; stopped worker: {status(stopped)}")
        assert process.returncode == 0
        assert not stopped.is_running(), "the stopped worker was left behind"
    finally:
        kill(process)
        if stopped is not None and stopped.is_running():
            os.kill(stopped.pid, signal.SIGKILL)
    assert parameters(run) == parameters(calm)
    assert numbers(run) == numbers(calm)
    assert (run / "logs/stuck-rank-0.txt").exists()
    assert not (run / "logs/stuck-rank-1.txt").exists()


def status(process: psutil.Process) -> str:
    return process.status() if process.is_running() else "gone"
