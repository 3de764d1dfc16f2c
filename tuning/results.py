"""What a sweep leaves: tables, plots, a page, and the configuration that did best."""

import base64
import html
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from ray.tune import ResultGrid

from data.files import below, put_file
from job.settings.cli import overridden, to_yaml
from job.settings.config import Config
from tuning.search import VALIDATION
from tuning.space import Axis, Space

_STYLE = """
body { font: 14px sans-serif; margin: 2em } table { border-collapse: collapse }
td, th { padding: 1px 8px; text-align: right; border-bottom: 1px solid #ddd } img { max-width: 100% }
"""
_COLOURS = {"finished": "tab:blue", "stopped": "tab:orange", "failed": "tab:red"}


@dataclass(frozen=True)
class Results:
    """All that the trials told.

    Attributes:
        space: what was searched.
        metric: that was minimised.
        history: a row a validation: trial, run, validation, step, seconds, scores, and a column a
            key of the space.
        trials: a row a trial, at its best validation, the best trial first and failed ones last;
            `status` finished, stopped or failed.
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
            raise ValueError(
                f"no trial has a finite {self.metric}: "
                + ("; ".join(errors) or "was nothing validated?")
            )
        return first


def collect(grid: ResultGrid, space: Space, metric: str, validations: int) -> Results:
    """Put together what Tune knows of all trials, those of earlier starts of the sweep included.

    Args:
        grid: Tune's results.
        space: what was searched.
        metric: that was minimised.
        validations: of a whole trial.
    """
    told, rows = [], []
    for result in (grid[i] for i in range(len(grid))):
        trial, values = result.path.rstrip("/").rpartition("/")[2], dict(result.config or {})
        error = "" if result.error is None else str(result.error).strip().splitlines()[-1]
        own = _history(trial, result.metrics_dataframe, space)
        done = int(own[VALIDATION].max()) if len(own) else 0
        status = "failed" if error else "finished" if done >= validations else "stopped"
        best = (
            dict(own.loc[own[metric].idxmin()])
            if len(own)
            else {"trial": trial, metric: math.inf, **values}
        )
        rows.append({"trial": trial, "status": status, "validations": done, **best, "error": error})
        told.append(own)
    # what a trial had before it failed counts for nothing: its values lead there
    rows.sort(key=lambda row: (row["status"] == "failed", row[metric]))
    trials = pd.DataFrame(rows)
    return Results(space, metric, pd.concat(told, ignore_index=True), trials)


def _history(trial: str, told: pd.DataFrame | None, space: Space) -> pd.DataFrame:
    """A trial's validations; one that was told again after a restart counts once."""
    if told is None or VALIDATION not in told:
        return pd.DataFrame(columns=[VALIDATION])
    columns = {"run": "run", VALIDATION: VALIDATION, "step": "step", "time_total_s": "seconds"}
    columns |= {tag: tag for tag in told if tag.startswith("eval/")} | {
        f"config/{key}": key for key in space
    }
    found = told[[name for name in columns if name in told]].rename(columns=columns)
    found = found.drop_duplicates(VALIDATION, keep="last").sort_values(
        VALIDATION, ignore_index=True
    )
    found.insert(0, "trial", trial)
    return found


def best_config(results: Results, cfg: Config, name: str) -> Config:
    """The configuration with the best trial's values, to be trained as a run of its own.

    Args:
        results: of the sweep.
        cfg: that the sweep started from.
        name: of the run.

    Raises:
        ValueError: no trial has a score.
    """
    best = overridden(
        cfg, {key: _own(axis, results.best[key]) for key, axis in results.space.items()}
    )
    return replace(best, run=replace(cfg.run, name=name))


def save(results: Results, folder: str, best: Config, population: bool) -> None:
    """Write tables, plots, page and best.yaml.

    Args:
        results: of the sweep.
        folder: folder or URI of the sweep.
        best: what best.yaml says.
        population: whether values changed while the trials trained.

    Raises:
        OSError: it cannot be written.
    """
    for name, table in (("trials", results.trials), ("history", results.history)):
        put_file(below(folder, f"{name}.csv"), table.to_csv(index=False).encode())
        buffer = io.BytesIO()
        table.astype({c: str for c in table if table[c].dtype == object}).to_parquet(
            buffer, index=False
        )
        put_file(below(folder, f"{name}.parquet"), buffer.getvalue())
    images = {"metric": metric_plot(results)} | (
        {"schedule": schedule_plot(results)} if population else {}
    )
    for name, image in images.items():
        put_file(below(folder, f"{name}.png"), image)
    put_file(below(folder, "sweep.html"), page(results, folder, images).encode())
    put_file(below(folder, "best.yaml"), to_yaml(best).encode())


def metric_plot(results: Results) -> bytes:
    """The metric of each trial against each of its values: PNG."""
    shown = results.trials[results.trials[results.metric].map(math.isfinite)]
    figure, panels = _panels(results.space)
    for key, axes in panels.items():
        for status, colour in _COLOURS.items():
            of = shown[shown["status"] == status]
            if len(of):
                axes.scatter(
                    [_shown(v) for v in of[key]],
                    of[results.metric],
                    s=18,
                    color=colour,
                    label=status,
                )
        _label(axes, key, results.space, vertical=False)
        axes.set_ylabel(results.metric)
    if len(shown):
        next(iter(panels.values())).legend(fontsize=8)
    return _png(figure)


def schedule_plot(results: Results) -> bytes:
    """Each member's values over its steps, lighter where its score was worse: PNG."""
    figure, panels = _panels(results.space)
    for key, axes in panels.items():
        for trial, of in results.history.groupby("trial"):
            best = trial == results.trials["trial"].iloc[0]
            axes.step(
                of["step"],
                [_shown(v) for v in of[key]],
                where="pre",
                marker=".",
                linewidth=2 if best else 1,
                color="tab:blue" if best else "0.6",
                label=f"{trial} (best)" if best else None,
            )
        _label(axes, key, results.space, vertical=True)
        axes.set_xlabel("global step")
    next(iter(panels.values())).legend(fontsize=8)
    return _png(figure)


def _panels(space: Space) -> tuple[Figure, dict[str, Any]]:
    columns = min(3, len(space))
    rows = math.ceil(len(space) / columns)
    # no pyplot: nothing global to close
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(space) :]:
        unused.set_visible(False)
    return figure, dict(zip(space, axes, strict=False))


def _label(axes: Any, key: str, space: Space, vertical: bool) -> None:
    log = space[key].kind == "loguniform"
    (axes.set_ylabel if vertical else axes.set_xlabel)(key.removeprefix("train."))
    if log:
        (axes.set_yscale if vertical else axes.set_xscale)("log")
    axes.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def page(results: Results, folder: str, images: Mapping[str, bytes]) -> str:
    """The sweep as one HTML page without scripts: the trials, best first, and the plots."""
    counted = ", ".join(
        f"{n} {status}" for status, n in results.trials["status"].value_counts().items()
    )
    parts = [
        f"<h1>{html.escape(folder)}</h1>",
        f"<p>{len(results.trials)} trials ({counted}), by {results.metric}; smaller is better.</p>",
        results.trials.to_html(index=False, float_format="{:.6g}".format, na_rep=""),
    ]
    for name, image in images.items():
        parts.append(
            f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        )
    head = (
        f'<meta charset="utf-8"><title>Sweep {html.escape(folder)}</title><style>{_STYLE}</style>'
    )
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def console_table(rows: list[dict[str, Any]], space: Space) -> str:
    """Rows as aligned text, keys of the space by their last parts where these differ."""
    last = {key: key.rpartition(".")[2] for key in space}
    if len(set(last.values())) < len(last):
        last = {key: key for key in space}
    return (
        pd.DataFrame(rows)
        .rename(columns=last)
        .to_string(index=False, na_rep="", float_format="{:.4g}".format)
    )


def _shown(value: Any) -> Any:
    """A value on an axis: numbers as they are."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _own(axis: Axis, value: Any) -> Any:
    """The value of an axis that a table shows: there whole numbers may be fractions, tuples lists, and none NaN."""
    if axis.is_range:
        return float(value)
    return next(
        (
            own
            for own in axis.values
            if own == value or (isinstance(own, tuple) and list(own) == value)
        ),
        None,
    )
