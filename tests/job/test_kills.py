"""Repeated kills: the run ends at the same step with the same bits as one that nobody disturbed."""

import random
import re
import time

import pytest
from ray.train import Result

from tests.job.conftest import arguments, kill, metrics
from tests.job.on_ray.test_results import listed

STEPS = 24
KILLS = 3
COMMAND_S = 1200  # a busy machine takes several times what a quiet one does

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * COMMAND_S)]


def test_killed_again_and_again_and_resized_the_bits_are_the_same(command, shards, tmp_path):
    """Kill driver, workers and data tasks with SIGKILL at random, each time at another size."""
    seed = random.randrange(2**32)
    print(f"\nseed {seed}")
    chance = random.Random(seed)
    options = {"train__max_steps": STEPS, "train__reduction": "exact"}
    options |= {"train__checkpoint__every_steps": 2, "eval__every_steps": 8}
    options |= {"data__plan__mode": "cost", "data__plan__cost__budget": 800}
    began = time.monotonic()
    done = command(
        "job.train", *arguments(shards, tmp_path, run__name="calm", **options), timeout=COMMAND_S
    )
    assert done.returncode == 0, done.stderr
    whole = time.monotonic() - began
    run = tmp_path / "stormy"
    for _ in range(KILLS):
        workers = chance.choice([1, 2, 3])
        process = command.start(
            "job.train",
            *arguments(
                shards, tmp_path, run__name="stormy", scaling__num_workers=workers, **options
            ),
        )
        try:
            time.sleep(chance.uniform(0.2, 0.7) * whole)
            ended = process.poll()
        finally:
            kill(process)
        print(f"{workers} workers, killed at {len(list(run.glob('checkpoint_0*')))} checkpoints")
        if (run / "checkpoint_manager_snapshot.json").exists():  # it had begun
            listed(Result.from_path(run))  # all of them are there
        if ended is not None:
            break
    done = command(
        "job.train", *arguments(shards, tmp_path, run__name="stormy", **options), timeout=COMMAND_S
    )
    assert done.returncode == 0, done.stderr

    def parameters(name: str) -> str:
        return re.findall(
            r"parameters ([0-9a-f]{64})", (tmp_path / name / "logs/rank-0.log").read_text()
        )[-1]

    def losses(name: str) -> list[dict]:
        return [
            {k: v for k, v in line.items() if k.startswith(("loss", "step", "consumed"))}
            for line in lines(name)
        ]

    def lines(name: str) -> list[dict]:
        return metrics(tmp_path / name)

    assert parameters("stormy") == parameters("calm")
    assert losses("stormy") == losses("calm")
    stormy, calm = (Result.from_path(tmp_path / name) for name in ("stormy", "calm"))
    assert listed(stormy) == listed(calm)
    assert stormy.metrics["loss/g/mel"] == calm.metrics["loss/g/mel"]
