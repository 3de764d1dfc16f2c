"""A run with damaged shards stops with its state saved, and resumes with other settings."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.plan.epoch_plan import Position
from data.plan.history import change_of
from data.shards.manifest import read_manifest
from data.shards.shard import ShardReader
from data.stream.spec import StreamSpec, schedule_of
from job.settings.cli import read_config
from tests.job.conftest import DEMO, arguments, metrics
from trainable.learning.report import crc

SEGMENT = 8  # frames, of conftest.SMALL
FIRST = 2  # steps before the one that a damaged row stops
# until the first epoch is over, of which three micro-batches of 300 frames a step are left
STEPS = 15
pytestmark = pytest.mark.slow  # two runs


@pytest.fixture(scope="module")
def damaged(shards, tmp_path_factory) -> tuple[Path, int]:
    """Copy the shards with a flipped bit in a row of step FIRST + 1; return that row too."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(shards, folder, dirs_exist_ok=True)
    cfg = read_config(DEMO)
    manifest = read_manifest(str(folder))
    # of conftest.SMALL
    data = replace(cfg.data, shards=str(folder), plan=replace(cfg.data.plan, max_frames=500))
    spec = StreamSpec.of_new_run(
        data, manifest.digest, cfg.train.seed, cfg.train.micro_batches_per_step, SEGMENT
    )
    row = int(schedule_of(spec).plan(0).micro_batch(FIRST, 1)[0])
    place = manifest.table.to_pylist()[row]
    path = folder / place["shard"]
    content = bytearray(path.read_bytes())
    content[
        content.index(ShardReader(str(folder)).row(place["shard"], place["row"])["audio"]) + 5000
    ] ^= 1
    path.write_bytes(content)
    return folder, row


def test_it_stops_saved_and_goes_on_with_another_policy_and_a_lower_budget(
    command, damaged, tmp_path
):
    folder, row = damaged
    manifest, run = read_manifest(str(folder)), tmp_path / "far"
    name = manifest.column("id")[row]
    options = {"run__name": "far", "train__max_steps": STEPS, "train__checkpoint__every_steps": 100}

    stopped = command("job.train", *arguments(folder, tmp_path, **options))
    assert stopped.returncode == 2, stopped.stdout[-2000:] + stopped.stderr[-3000:]
    (line,) = [line for line in stopped.stderr.splitlines() if line.startswith("error: ")]
    assert f"utterance {name}: " in line
    assert "its checksum differs" in line
    assert "data.bad_rows" in line
    assert "Traceback" not in stopped.stderr
    for rank in (0, 1):
        log = (run / f"logs/rank-{rank}.log").read_text()
        assert log.count("starts from") == 1  # no restart
        assert f"utterance {name}: " in log
    assert [path.name for path in run.glob("checkpoint_0*")] == [f"checkpoint_{FIRST:09d}"]

    options |= {
        "data__bad_rows": "replace",
        "data__plan__max_frames": 300,
        "train__micro_batches_per_step": 3,
    }
    done = command("job.train", *arguments(folder, tmp_path, **options))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    logs = "".join((run / f"logs/rank-{rank}.log").read_text() for rank in (0, 1))
    assert re.search(rf"resumes at step {FIRST}\b", logs)
    settings = re.search(r"resumes with other settings: (.*)", logs)[1]
    for change in (
        "data.plan.max_frames 500 -> 300",
        "train.micro_batches_per_step 4 -> 3",
        "refuse -> replace",
    ):
        assert change in settings
    assert "what epoch 0 has not used yet is planned again" in logs
    replacement = re.search(rf"utterance {re.escape(name)} \((.*)\) is replaced by (\S+)", logs)
    assert replacement
    assert logs.count(replacement[0]) == 1

    state = json.loads((run / f"checkpoint_{STEPS:09d}/state.json").read_text())
    history = tuple(map(change_of, state["history"]))
    assert [(c.epoch, c.epoch_step, c.cut.plan.max_frames) for c in history] == [
        (0, 0, 500),
        (0, FIRST, 300),
    ]
    cfg = read_config(run / "config.yaml")
    spec = StreamSpec(cfg.data, manifest.digest, history)
    other = manifest.column("id").tolist().index(replacement[2])
    position, lines = Position(), metrics(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        plan = schedule_of(spec).plan(position.epoch)
        slots = range(int(np.diff(plan.begins)[position.epoch_step]))
        used = [plan.micro_batch(position.epoch_step, slot) for slot in slots]
        assert line["consumed"] == [crc(np.where(batch == row, other, batch)) for batch in used]
        position = schedule_of(spec).after(position)
