"""Preparation killed with SIGKILL and run again: the same manifest, byte for byte."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.job.conftest import DEMO, Command, kill

MANIFEST = ("manifest.json", "manifest.parquet")


def arguments(folder: Path) -> list[str]:
    return ["--config", str(DEMO), "--data.shards", str(folder)]


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("shards/*.parquet")}


def wait_for_shards(
    folder: Path, process: subprocess.Popen, count: int, timeout: float = 200
) -> None:
    deadline = time.monotonic() + timeout
    while len(written(folder)) < count:
        assert process.poll() is None, "the command ended early"
        assert time.monotonic() < deadline, f"no {count} shards after {timeout} s"
        time.sleep(0.01)


def check_finishes_alike(prepare: Callable, folder: Path, calm: Path) -> None:
    done = prepare("job.prepare", *arguments(folder))
    assert done.returncode == 0, done.stderr
    for name in MANIFEST:
        assert (folder / name).read_bytes() == (calm / name).read_bytes()
    for path in folder.glob("shards/*"):
        assert path.read_bytes() == (calm / "shards" / path.name).read_bytes()


def test_killed_among_its_shards(command: Command, call, ray_local, shards, tmp_path):
    for folder in (tmp_path / "first", tmp_path / "second", tmp_path / "third"):
        process = command.start("job.prepare", *arguments(folder))
        try:
            wait_for_shards(folder, process, 1)
        finally:
            kill(process)
        if not (folder / "manifest.json").exists():
            break
    else:
        pytest.fail("the command was done before it could be killed, three times")
    kept = written(folder)
    check_finishes_alike(call, folder, shards)
    assert kept <= written(folder) == written(shards)


@pytest.mark.slow
def test_killed_again_and_again(command: Command, shards, tmp_path):
    """At any moment, and among the shards, whose writing is short beside all else."""
    seed = random.randrange(2**32)
    print(f"\nseed {seed}")
    chance = random.Random(seed)
    began = time.monotonic()
    check_finishes_alike(command, tmp_path / "calm", shards)
    whole = time.monotonic() - began
    for number in range(4):
        folder = tmp_path / str(number)
        for among in chance.choices([True, False], k=2):
            have = len(written(folder))
            process = command.start("job.prepare", *arguments(folder))
            try:
                if among and have < len(written(shards)):
                    wait_for_shards(folder, process, chance.randint(have + 1, len(written(shards))))
                else:
                    time.sleep(chance.uniform(0.1, 1) * whole)
            finally:
                kill(process)
            print(f"folder {number}: killed with {len(written(folder))} shards")
        check_finishes_alike(command, folder, shards)
        assert not list(folder.glob("shards/*.part"))
