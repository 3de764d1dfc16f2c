"""What job.train says and settles about the plan before it starts anything."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data.plan.epoch_plan import Position
from data.plan.history import Cut, History, begun, changed
from data.settings.plan import PlanConfig
from data.shards.manifest import ManifestError
from job import train
from job.settings.config import Config
from tests.tiny import DEMO
from trainable.run.format import CHECKSUMS, FORMAT, STATE, CheckpointInfo, checkpoint_name

BUDGET = PlanConfig(mode="budget", max_frames=700)


class Reached(Exception):  # noqa: N818
    """The shards are looked for: all that comes before is done."""


@pytest.fixture
def settled(monkeypatch, tmp_path) -> Callable[..., PlanConfig]:
    """Return a function that tells with which plan `job.train` goes on, given its options."""
    seen: list[Config] = []

    def note(cfg: Config) -> None:
        seen.append(cfg)
        raise Reached

    monkeypatch.setattr(train, "ready_manifest", note)

    def plan(*options: str) -> PlanConfig:
        storage = ["--run.storage", str(tmp_path)]
        with pytest.raises(Reached):
            train.main(["--config", str(DEMO), "--data.plan.mode", "auto", *storage, *options])
        return seen[-1].data.plan

    return plan


def checkpoint(storage: Path, history: History) -> None:
    """Write what a checkpoint of the demo's run says of itself."""
    folder = storage / "demo" / checkpoint_name(5)
    folder.mkdir(parents=True)
    info = CheckpointInfo(Position(5, 0, 5), "d" * 64, "code", {}, {}, 1, history=history)
    (folder / CHECKSUMS).write_text("{}")
    (folder / STATE).write_text(json.dumps({"format": FORMAT} | asdict(info)))


def history_of(plan: PlanConfig) -> History:
    return begun(Cut(0, 4, 16, True, plan))


def test_a_new_run_is_cut_by_cost(settled):
    assert settled().mode == "cost"
    assert settled("--data.plan.mode", "budget").mode == "budget"


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_goes_on_as_it_began_whatever_the_default_is_now(settled, tmp_path, recorded):
    history = history_of(replace(BUDGET, max_utterances=4, pad_to=settled().pad_to))
    checkpoint(tmp_path, history if recorded else ())
    plan = settled()
    assert plan.mode == "budget"
    cut = replace(history[-1].cut, plan=plan)
    assert changed(history, Position(5, 0, 5), cut) == history
    assert settled("--data.plan.mode", "cost").mode == "cost"


def test_the_last_change_counts(settled, tmp_path):
    history = history_of(BUDGET)
    cut = replace(history[0].cut, plan=PlanConfig(mode="cost"))
    checkpoint(tmp_path, changed(history, Position(3, 0, 3), cut))
    assert settled().mode == "cost"


@pytest.mark.parametrize(
    ("workers", "G", "note"),
    [
        ("3", 4, "3 workers cannot share train.micro_batches_per_step 4 evenly and wait 33% of "),
        ("3", 4, "; 6 could be shared by 3"),
        ("[1,4]", 4, "; 12 could be shared by 1 to 4"),
        ("[2,8]", 8, "; 40 could be shared by 2 to 8"),
        ("2", 4, ""),
        ("[1,2]", 4, ""),
    ],
)
def test_workers_who_will_wait_are_told_of_in_one_line(workers, G, note, tmp_path, capsys):
    shards = ["--data.shards", str(tmp_path / "none"), "--data.transcript", ""]
    options = ["--scaling.num_workers", workers, "--train.micro_batches_per_step", str(G)]
    with pytest.raises(ManifestError):
        train.main(["--config", str(DEMO), "--run.storage", str(tmp_path), *shards, *options])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == bool(note)
    assert note in "".join(notes)
