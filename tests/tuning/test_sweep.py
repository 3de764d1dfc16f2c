"""Sweeps of the demo preset as users run them: trials in own processes, killed, continued."""

import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import equal

from tests.job.conftest import DEMO, kill, metrics, overrides
from tests.tuning.conftest import METRIC
from trainable.run.storage import newest_good
from tuning.sweep import main

STEPS = 6


def sweep(command, argv: list[str], timeout: float = 1100) -> tuple[str, pd.DataFrame, Path]:
    """Run a sweep to its end: what it printed, its trials, its folder."""
    done = command("tuning.sweep", *argv, timeout=timeout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = (
        Path(argv[argv.index("--run.storage") + 1]) / f"{argv[argv.index('--run.name') + 1]}-sweep"
    )
    return done.stdout, pd.read_csv(folder / "trials.csv").set_index("trial", drop=False), folder


@pytest.mark.slow
def test_asha_stops_bad_trials_early_and_the_best_one_trains(command, sweep_arguments, tmp_path):
    """Two of three learning rates are no good: six trials, on as many CPUs as one of them takes."""
    printed, trials, folder = sweep(command, sweep_arguments(tmp_path, run__name="asha", trials=6))
    assert len(trials) == 6
    assert "running" in printed
    stopped, finished = (
        trials[trials["status"] == "stopped"],
        trials[trials["status"] == "finished"],
    )
    assert len(stopped) >= 2
    assert stopped["validations"].max() < 3
    for trial in finished["trial"]:
        assert [line["step"] for line in metrics(folder / "runs" / trial)] == [*range(1, STEPS + 1)]
    for trial in stopped["trial"]:  # what it had not saved is lost with its process
        assert len(metrics(folder / "runs" / trial)) <= STEPS
    best = trials.iloc[0]
    assert best[METRIC] == trials[METRIC].min()
    assert best["train.learning_rate"] == 0.002
    history = pd.read_parquet(folder / "history.parquet")
    assert len(history) == trials["validations"].sum()
    assert "<svg" in (folder / "sweep.html").read_text()
    config = yaml.safe_load((folder / "best.yaml").read_text())
    assert config["train"]["loss_weights"]["mel"] == best["train.loss_weights.mel"]
    board = EventAccumulator(str(folder / "tune" / best["trial"]))
    board.Reload()
    assert "_hparams_/session_start_info" in board.summary_metadata
    done = command(
        "job.train", "--config", str(folder / "best.yaml"), *overrides(train__max_steps=2)
    )
    assert done.returncode == 0, done.stderr
    assert "run asha-best: step 2 of 2" in done.stdout
    assert [line["step"] for line in metrics(tmp_path / "asha-best")] == [1, 2]


@pytest.mark.slow
def test_a_member_of_a_population_goes_on_from_another_ones_checkpoint(
    command, sweep_arguments, tmp_path
):
    """Three members, of one step a chunk, over three perturbations."""
    options = {"train__max_steps": 4, "eval__every_steps": 1, "train__checkpoint__every_steps": 1}
    argv = sweep_arguments(tmp_path, run__name="pbt [v2] 声*", schedule="pbt", trials=3, **options)
    printed, trials, folder = sweep(command, argv)
    assert len(trials) == 3
    history = pd.read_csv(folder / "history.csv")
    assert sorted(history["validation"]) == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    moved = (
        history[history["run"] != history["trial"]].sort_values("validation").drop_duplicates("run")
    )
    assert len(moved) >= 2
    for _, row in moved.iterrows():
        run, begin = folder / "runs" / row["run"], row["step"] - 1
        assert metrics(run)[0]["step"] == begin + 1 > 1  # not from 0
        ours = run / f"checkpoint_{begin:09d}"
        others = [
            path
            for path in (folder / "runs").glob(f"*/{ours.name}")
            if not path.parent.name.startswith(row["trial"])
        ]
        donors = [other for other in others if same_weights(other, ours)]
        assert donors
        resumed = (run / "logs/rank-0.log").read_text()
        assert f"resumes at step {begin} from {ours}" in resumed
        assert "resumes with other settings: " in resumed
    assert (folder / "schedule.png").stat().st_size > 1000
    assert "best.yaml" in printed


@pytest.mark.slow
def test_after_a_kill_of_the_driver_finished_trials_are_not_run_again(
    command, sweep_arguments, tmp_path
):
    argv = sweep_arguments(tmp_path, run__name="killed", schedule="none", trials=3)
    process, runs = command.start("tuning.sweep", *argv), tmp_path / "killed-sweep/runs"
    try:
        deadline = time.monotonic() + 600
        while not (len(ran := begun(runs)) == 2 and newest_good(str(ran[1]))):
            assert process.poll() is None, "the sweep ended early"
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        kill(process)
    first, second = ran
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    printed, trials, _ = sweep(command, argv)
    assert "continues the sweep: finished trials are not run again" in printed
    assert list(trials["status"]) == ["finished"] * 3
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == before
    assert "resumes at step" in (second / "logs/rank-0.log").read_text()
    assert {path.name for path in begun(runs)} == set(trials["trial"])
    for trial in trials["trial"]:
        assert [line["step"] for line in metrics(runs / trial)] == [*range(1, STEPS + 1)]
    other = command("tuning.sweep", *argv, "--seed", "1")
    assert other.returncode == 2
    assert "was written by a sweep with other settings" in other.stderr


def same_weights(one: Path, other: Path) -> bool:
    """Whether all networks of two checkpoints are alike."""
    return all(
        equal(weights, load_file(other / file.name)[name])
        for file in one.glob("*.safetensors")
        for name, weights in load_file(file).items()
    )


def begun(runs: Path) -> list[Path]:
    """Folders of the runs, in the order in which they began."""
    return sorted(
        (path.parent for path in runs.glob("*/config.yaml")),
        key=lambda path: path.stat().st_ctime_ns,
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metric": "loss/g/total"}, r"--metric loss/g/total: it holds the weights"),
        ({"metric": "eval/beauty"}, r"--metric eval/beauty: unknown; give .* eval/mel"),
        ({"eval__max_utterances": 0}, r"eval\.max_utterances is 0"),
        ({"train__checkpoint__keep_best": 0}, r"train\.checkpoint\.keep_best is 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, named):
    argv = [
        "--config",
        str(DEMO),
        *overrides(**{"space": "reconstruction", "metric": METRIC} | options),
    ]
    with pytest.raises(ValueError, match=named):
        main(argv)
