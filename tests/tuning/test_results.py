"""What a sweep leaves."""

import io
import math
import re
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from job.settings.cli import read_config
from job.settings.config import Config
from tuning.page import save_page
from tuning.results import Results, best_config, collect, console_table, save
from tuning.space import Axis

MEL, PRECISION = "train.loss_weights.mel", "train.precision"
SPACE = {MEL: Axis("loguniform", (1.0, 100.0)), PRECISION: Axis("choice", ("fp32", "bf16"))}


class Grid(list):
    """Tune's results, as far as they are looked at."""


def trial(name: str, scores: list[float], mel: float, error: str | None = None) -> SimpleNamespace:
    values = {MEL: mel, PRECISION: "bf16"}
    told = {
        "run": name,
        "validation": range(1, len(scores) + 1),
        "step": [10 * i for i in range(1, len(scores) + 1)],
        "time_total_s": 1.0,
        "eval/mel": scores,
        "training_iteration": 1,
    } | {f"config/{key}": value for key, value in values.items()}
    frame = pd.DataFrame(told, index=range(len(scores))) if scores else None
    return SimpleNamespace(
        path=f"/sweep/tune/{name}", config=values, error=error, metrics_dataframe=frame
    )


@pytest.fixture
def results() -> Results:
    failed = trial("c", [1.0], 7.0, "Traceback\nValueError: NaN\n")
    grid = Grid([trial("a", [3.0, 2.0, 2.5], 45.0), trial("b", [2.2], 30.0), failed])
    return collect(grid, SPACE, "eval/mel", validations=3)  # type: ignore[arg-type]


def test_trials_are_ranked_by_their_best_validation_and_failed_ones_last(results):
    assert list(results.trials["trial"]) == ["a", "b", "c"]
    assert list(results.trials["status"]) == ["finished", "stopped", "failed"]
    assert list(results.trials["step"]) == [20, 10, 10]
    assert results.trials["error"].iloc[2] == "ValueError: NaN"
    assert list(results.history["eval/mel"]) == [3.0, 2.0, 2.5, 2.2, 1.0]


def test_a_validation_that_was_told_twice_counts_once():
    told = trial("a", [3.0, 2.0], 45.0)
    told.metrics_dataframe = pd.concat([told.metrics_dataframe, told.metrics_dataframe.iloc[1:]])
    assert len(collect(Grid([told]), SPACE, "eval/mel", 2).history) == 2  # type: ignore[arg-type]


@pytest.mark.medium
def test_everything_is_written_and_best_yaml_is_a_configuration(results, tmp_path):
    best = best_config(results, Config(), "mine-best")
    save(results, str(tmp_path), best, population=True)
    again = read_config(tmp_path / "best.yaml")
    assert again == best
    assert (again.run.name, again.train.loss_weights.mel, again.train.precision) == (
        "mine-best",
        45.0,
        "bf16",
    )
    for name, table in (("trials", results.trials), ("history", results.history)):
        assert len(pd.read_csv(tmp_path / f"{name}.csv")) == len(table)
        parquet = pd.read_parquet(io.BytesIO((tmp_path / f"{name}.parquet").read_bytes()))
        assert list(parquet[MEL]) == list(table[MEL])
    for name in ("metric", "schedule"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.medium
def test_the_page_ranks_trials_and_marks_the_baseline(results, tmp_path):
    save_page(results, str(tmp_path), True, {MEL: 30.0, PRECISION: "bf16"})
    page = (tmp_path / "sweep.html").read_text("utf-8")
    assert "3 trials (1 finished, 1 stopped, 1 failed)" in page
    assert page.count("<svg") == 1 + 2 * len(SPACE)
    first, second, third = re.findall(r"<tr><td class=\"number\"[^>]*>\d</td>.*?</tr>", page)
    assert 'href="runs/a"' in first
    assert "2.0000 ▲" in first
    assert "baseline" in second
    assert "baseline" not in first + third
    assert "▼" not in second
    assert "ValueError: NaN" in third
    assert "runs/nan" not in page
    assert str(tmp_path) not in re.sub("logdir [^<]*", "", page)


def test_values_that_tables_change_come_back_as_they_were():
    keys = ("train.warmup_steps", "train.learning_rates.g", "train.betas")
    space = dict(
        zip(
            keys,
            (Axis("choice", v) for v in ((5, 9), (None, 1e-4), ((0.8, 0.9), (0.7, 0.9)))),
            strict=True,
        )
    )
    table = pd.DataFrame(
        [
            {"eval/mel": 1.0, "status": "finished"}
            | dict(zip(keys, (9.0, math.nan, [0.7, 0.9]), strict=True))
        ]
    )
    best = best_config(Results(space, "eval/mel", pd.DataFrame(), table), Config(), "best").train
    assert (best.warmup_steps, best.learning_rates.g, best.betas) == (9, None, (0.7, 0.9))
    assert isinstance(best.warmup_steps, int)


def test_a_sweep_without_a_score_says_why():
    without_score: Any = Grid([trial("c", [], 7.0, "ValueError: NaN")])
    failed = collect(without_score, SPACE, "eval/mel", 3)
    with pytest.raises(ValueError, match="no trial has a finite eval/mel: ValueError: NaN"):
        best_config(failed, Config(), "best")
    with_infinity: Any = Grid([trial("a", [math.inf], 7.0)])
    infinite = collect(with_infinity, SPACE, "eval/mel", 3)
    with pytest.raises(ValueError, match="no trial has a finite"):
        best_config(infinite, Config(), "best")


def test_the_console_shows_the_last_parts_of_keys():
    shown = console_table([{"trial": "a", MEL: 45.0, PRECISION: "bf16"}], SPACE)
    assert shown.split() == ["trial", "mel", "precision", "a", "45", "bf16"]
    both = {"train.learning_rates.g": SPACE[MEL], "x.g": SPACE[MEL]}
    assert "train.learning_rates.g" in console_table(
        [{"train.learning_rates.g": 1.0, "x.g": 2.0}], both
    )
