"""Preparation killed with SIGKILL and run again: the same manifest, byte for byte."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.job.conftest import DEMO, Command, kill

MANIFEST = ("manifest.json", "manifest.parquet")


def arguments(folder: Path) -> list[str]:
    return ["--config", str(DEMO), "--data.shards", str(folder)]


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("shards/*.parquet")}


def wait_for_a_shard(folder: Path, process: subprocess.Popen, timeout: float = 200) -> None:
    deadline = time.monotonic() + timeout
    while not written(folder):
        assert process.poll() is None, "the command ended early"
        assert time.monotonic() < deadline, f"no shard after {timeout} s"
        time.sleep(0.01)


def check_finishes_alike(command: Command, folder: Path, calm: Path) -> None:
    done = command("job.prepare", *arguments(folder))
    assert done.returncode == 0, done.stderr
    for name in MANIFEST:
        assert (folder / name).read_bytes() == (calm / name).read_bytes()
    for path in folder.glob("shards/*"):
        assert path.read_bytes() == (calm / "shards" / path.name).read_bytes()


def test_killed_among_its_shards(command: Command, shards, tmp_path):
    for folder in (tmp_path / "first", tmp_path / "second", tmp_path / "third"):
        process = command.start("job.prepare", *arguments(folder))
        try:
            wait_for_a_shard(folder, process)
        finally:
            kill(process)
        if not (folder / "manifest.json").exists():
            break
    else:
        pytest.fail("the command was done before it could be killed, three times")
    kept = written(folder)
    check_finishes_alike(command, folder, shards)
    assert kept <= written(folder) == written(shards)


@pytest.mark.slow
def test_killed_again_and_again(command: Command, shards, tmp_path):
    seed = random.randrange(2**32)
    print(f"\nseed {seed}")
    chance = random.Random(seed)
    began = time.monotonic()
    check_finishes_alike(command, tmp_path / "calm", shards)
    whole = time.monotonic() - began
    for number in range(8):
        folder = tmp_path / str(number)
        for _ in range(chance.randint(1, 3)):
            process = command.start("job.prepare", *arguments(folder))
            try:
                time.sleep(chance.uniform(0.1, 1) * whole)
            finally:
                kill(process)
            print(f"folder {number}: killed with {len(written(folder))} shards")
        check_finishes_alike(command, folder, shards)
        assert not list(folder.glob("**/*.part"))
