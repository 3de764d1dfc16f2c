"""Costs fitted to a run's steps are those that its times were made of."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import yaml

from benchmarks.batch_finder import main
from benchmarks.cost_fit import fit
from data.plan.costs import utterance_costs
from data.plan.epoch_plan import Position, rounded_up
from data.plan.schedule import Schedule
from data.settings.plan import CostConfig, PlanConfig
from data.shards.manifest import COLUMNS, write_manifest
from data.stream.spec import schedule_of
from job.settings.cli import read_config, to_yaml
from tests.tiny import demo_config
from trainable.worker.resume import spec_of_new_run

UTTERANCES = 3000
STEPS = 240
WAITING = 5.0


def seconds_of(schedule: Schedule, position: Position, workers: int, cost: CostConfig) -> float:
    """Return how long the slowest worker takes, by the plan alone."""
    plan = schedule.plan(position.epoch)
    frames = rounded_up(schedule.frames, schedule.cut.plan.pad_to.frames)
    longest = [
        sum(
            cost.micro_batch + len(own) * utterance_costs(cost, frames[own].max())
            for own in (plan.micro_batch(position.epoch_step, slot) for slot in slots)
        )
        for slots in schedule.shares(position, workers)
    ]
    return max(longest)


def make_run(folder, plan: PlanConfig, cost: CostConfig, workers: int = 2, noise: float = 0.0):
    """Write what `--fit` reads of a run whose micro-batches cost this many seconds."""
    rng = np.random.default_rng(0)
    frames = np.clip(400 * np.exp(0.6 * rng.standard_normal(UTTERANCES)), 86, 1033)
    table = [
        {name: "x" for name in COLUMNS.names if pa.types.is_string(COLUMNS.field(name).type)}
        | {"id": f"{i:05d}", "split": "train", "frames": int(n), "phones": int(n) // 3}
        | {"samples": 512 * int(n), "row": i, "shard": "shard"}
        for i, n in enumerate(frames)
    ]
    header = {"speakers": {"a": 0}, "spectrograms": False}
    shards = folder / "shards"
    shards.mkdir(parents=True)
    manifest = write_manifest(str(shards), header, pa.Table.from_pylist(table, COLUMNS))

    cfg = demo_config()
    cfg = replace(cfg, data=replace(cfg.data, shards=str(shards), plan=plan.settled()))
    schedule = schedule_of(spec_of_new_run(cfg, manifest))
    lines, here = [], Position()
    for _ in range(STEPS):
        seconds = seconds_of(schedule, here, workers, cost) * np.exp(noise * rng.normal())
        seconds *= 4 if here.step < 3 else 1  # the first steps are slow
        line = {"step": here.step + 1, "epoch": here.epoch, "world_size": workers}
        lines.append(line | {"seconds": seconds + WAITING, "seconds_waiting": WAITING})
        here = schedule.after(here)
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(cfg))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run, schedule


TRUE = CostConfig(budget=1e6, micro_batch=0.02, utterance=0.01, frame=3e-5, cell=1e-8)


@pytest.mark.parametrize(
    "plan", [PlanConfig(mode="budget"), PlanConfig(mode="budget", max_utterances=24), PlanConfig()]
)
def test_the_costs_come_back_and_the_line_can_be_set(plan, tmp_path, capsys):
    run, schedule = make_run(tmp_path, plan, TRUE, noise=0.03)
    assert main(["--fit", str(run), "--json", str(tmp_path / "out.json")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    result = json.loads((tmp_path / "out.json").read_text())
    assert yaml.safe_load(line) == {"data": result["data"]}
    assert result["steps"] == STEPS
    assert result["error"] < 0.04

    # they tell all micro-batches of the run's kind apart
    own = tmp_path / "own.yaml"
    own.write_text(line)
    found = read_config(own).data.plan
    assert found.mode == "cost"
    frames = np.arange(100, 1000, 100)
    ratio = utterance_costs(found.cost, frames) / utterance_costs(TRUE, frames) / 1000
    assert ratio.max() / ratio.min() < 1.15

    # and make as many micro-batches
    plan = replace(schedule.cut.plan, mode="cost", cost=found.cost)
    lengths = schedule.rows, schedule.frames, schedule.phones
    made = replace(schedule.cut, plan=plan).epoch_plan(*lengths, 0)
    assert len(made.costs) == pytest.approx(len(schedule.plan(0).costs), rel=0.03)


def test_one_worker_that_takes_all_micro_batches(tmp_path):
    run, _ = make_run(tmp_path, PlanConfig(mode="budget"), TRUE, workers=1)
    found = fit(str(run))["data"]["plan"]["cost"]
    assert found["utterance"] == pytest.approx(10, rel=0.15)


def test_a_run_without_enough_steps_is_refused(tmp_path):
    run, _ = make_run(tmp_path, PlanConfig(), TRUE)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[:5]) + "\n")
    with pytest.raises(ValueError, match="has metrics of 5 steps: give a run of 20 or more"):
        main(["--fit", str(run)])
