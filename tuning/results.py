"""What a sweep leaves: tables, plots, a page, and the best trial's configuration."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from ray.tune import Result, ResultGrid

from data.files import below, put_file
from job.reports.console import table
from job.reports.plots import coordinates, panels, png
from job.settings.cli import overridden, to_yaml
from job.settings.config import Config
from tuning.search import VALIDATION
from tuning.space import Axis, Space

TICKS = 3  # of a logarithmic axis
_COLOURS = {"finished": "tab:blue", "stopped": "tab:orange", "failed": "tab:red"}


@dataclass(frozen=True)
class Results:
    """All that the trials reported.

    Attributes:
        space: what was searched.
        metric: score that was minimised.
        history: one row per validation: trial, run, validation, step, seconds, scores, and one
            column per key of the space.
        trials: one row per trial, at its best validation; the best trial first and failed ones
            last; `status` is finished, stopped or failed.
    """

    space: Space
    metric: str
    history: pd.DataFrame
    trials: pd.DataFrame

    @property
    def best(self) -> dict[str, Any]:
        """The best trial's row.

        Raises:
            ValueError: no trial has a score.
        """
        first = dict(self.trials.iloc[0])
        if first["status"] == "failed" or not math.isfinite(first[self.metric]):
            errors = sorted(set(self.trials["error"]) - {""})
            reason = "; ".join(errors) or "was nothing validated?"
            raise ValueError(f"no trial has a finite {self.metric}: {reason}")
        return first


def collect(grid: ResultGrid, space: Space, metric: str, validations: int) -> Results:
    """Gather what Tune knows of all trials, including those of earlier starts of the sweep.

    Args:
        grid: Tune's results.
        space: what was searched.
        metric: score that was minimised.
        validations: how many a whole trial has.
    """
    histories = []
    rows = []
    for result in (grid[i] for i in range(len(grid))):
        trial = result.path.rstrip("/").rpartition("/")[2]
        history = _history(trial, result.metrics_dataframe, space)
        histories.append(history)
        rows.append(_row(trial, result, history, metric, validations))

    # scores that a trial had before it failed count for nothing: its values lead to the failure
    rows.sort(key=lambda row: (row["status"] == "failed", row[metric]))
    return Results(space, metric, pd.concat(histories, ignore_index=True), pd.DataFrame(rows))


def _row(
    trial: str, result: Result, history: pd.DataFrame, metric: str, validations: int
) -> dict[str, Any]:
    """Return the row of a trial: its status, and its best validation or else its values."""
    error = "" if result.error is None else str(result.error).strip().splitlines()[-1]
    if len(history):
        done = int(history[VALIDATION].max())
        best = dict(history.loc[history[metric].idxmin()])
    else:
        done = 0
        best = {"trial": trial, metric: math.inf, **(result.config or {})}

    finished = "finished" if done >= validations else "stopped"
    status = "failed" if error else finished
    return {"trial": trial, "status": status, "validations": done, **best, "error": error}


def _history(trial: str, reported: pd.DataFrame | None, space: Space) -> pd.DataFrame:
    """Return a trial's validations; one that was reported again after a restart counts once."""
    if reported is None or VALIDATION not in reported:
        return pd.DataFrame(columns=[VALIDATION])
    names = {"run": "run", VALIDATION: VALIDATION, "step": "step", "time_total_s": "seconds"}
    names |= {tag: tag for tag in reported if tag.startswith("eval/")}
    names |= {f"config/{key}": key for key in space}
    found = reported[[name for name in names if name in reported]].rename(columns=names)
    # a trial that continues tells its last validation again
    found = found.drop_duplicates(VALIDATION, keep="last")
    found = found.sort_values(VALIDATION, ignore_index=True)
    found.insert(0, "trial", trial)
    return found


def best_config(results: Results, cfg: Config, name: str) -> Config:
    """Return the configuration with the best trial's values, to be trained as a run of its own.

    Args:
        results: results of the sweep.
        cfg: the configuration that the sweep started from.
        name: name of the run.

    Raises:
        ValueError: no trial has a score.
    """
    values = {key: _own(axis, results.best[key]) for key, axis in results.space.items()}
    return replace(overridden(cfg, values), run=replace(cfg.run, name=name))


def save(results: Results, folder: str, best: Config, population: bool) -> None:
    """Write tables, plots and best.yaml.

    Args:
        results: results of the sweep.
        folder: folder or URI of the sweep.
        best: content of best.yaml.
        population: whether values changed while the trials trained.

    Raises:
        OSError: it cannot be written.
    """
    files = {"metric.png": metric_plot(results)}
    if population:
        files["schedule.png"] = schedule_plot(results)
    for name, frame in (("trials", results.trials), ("history", results.history)):
        files[f"{name}.csv"] = frame.to_csv(index=False).encode()
        files[f"{name}.parquet"] = _parquet(frame)
    files["best.yaml"] = to_yaml(best).encode()
    for name, content in files.items():
        put_file(below(folder, name), content)


def _parquet(frame: pd.DataFrame) -> bytes:
    """Return a table as a Parquet file; columns of mixed types become text."""
    mixed = {column: str for column in frame if frame[column].dtype == object}
    buffer = io.BytesIO()
    frame.astype(mixed).to_parquet(buffer, index=False)
    return buffer.getvalue()


def metric_plot(results: Results) -> bytes:
    """Return a plot of each trial's metric against each of its values: PNG."""
    figure, axes = panels(len(results.space))
    for key, panel in zip(results.space, axes, strict=True):
        draw_metric(panel, results, key)
    return png(figure)


def schedule_plot(results: Results) -> bytes:
    """Return a plot of each member's values over its steps, the best member's emphasised: PNG."""
    figure, axes = panels(len(results.space))
    for key, panel in zip(results.space, axes, strict=True):
        draw_schedules(panel, results, key)
    return png(figure)


def draw_metric(panel: Axes, results: Results, key: str) -> None:
    """Draw each trial's metric against its value of a key."""
    shown = results.trials[results.trials[results.metric].map(math.isfinite)]
    for status, colour in _COLOURS.items():
        own = shown[shown["status"] == status]
        if len(own):
            values = coordinates(own[key])
            panel.scatter(values, own[results.metric], s=18, color=colour, label=status)
    panel.set_xlabel(short_key(key))
    panel.set_ylabel(results.metric)
    _logarithmic(panel.xaxis, results.space[key])
    if len(shown):
        panel.legend(fontsize=8)


def draw_schedules(panel: Axes, results: Results, key: str) -> None:
    """Draw one line per member: its values of a key over its steps."""
    for trial, own in results.history.groupby("trial"):
        best = trial == results.trials["trial"].iloc[0]
        panel.step(
            own["step"],
            coordinates(own[key]),
            where="pre",
            marker=".",
            linewidth=2 if best else 1,
            color="tab:blue" if best else "0.6",
            label=f"{trial} (best)" if best else None,
        )
    panel.set_xlabel("global step")
    panel.set_ylabel(short_key(key))
    _logarithmic(panel.yaxis, results.space[key])
    panel.legend(fontsize=8)


def _logarithmic(axis: XAxis | YAxis, searched: Axis) -> None:
    """Scale an axis as it was searched: else the small values of a wide range lie on one spot."""
    if not searched.is_logarithmic:
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = searched.values
    ticks = np.geomspace(low, high, TICKS)
    axis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axis.set_minor_locator(NullLocator())


def short_key(key: str) -> str:
    """Return a key as plots and tables name it."""
    return key.removeprefix("train.")


def console_table(rows: Sequence[Mapping[str, Any]], space: Space) -> str:
    """Return rows as aligned text; keys of the space by their last parts if these differ.

    Args:
        rows: one mapping per trial, all with the same keys: column -> cell.
        space: what is searched.
    """
    short = {key: key.rpartition(".")[2] for key in space}
    if len(set(short.values())) < len(short):
        short = {}
    head = [short.get(column, column) for column in rows[0]] if rows else []
    cells = [[_cell(value) for value in row.values()] for row in rows]
    return table(head, cells, align_right=True)


def _cell(value: Any) -> str:
    """Return a value as text: numbers with four digits, nothing for what is unknown."""
    value = known(value)
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def known(value: Any) -> Any:
    """Return None for NaN, by which tables mark what is unknown; anything else as it is."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _own(axis: Axis, value: Any) -> Any:
    """Return the value of an axis that a table shows.

    In tables whole numbers may be fractions, tuples lists, and None NaN.
    """
    if axis.is_range:
        return float(value)
    same = (
        own
        for own in axis.values
        if own == value or (isinstance(own, tuple) and list(own) == value)
    )
    return next(same, None)
