"""A sweep as one HTML page: the trials by rank, their curves, and what the best ones sound like."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes

from data.files import below, put_file
from data.html_page import (
    Html,
    Tile,
    drawing,
    element,
    filter_box,
    link,
    marked,
    page,
    section,
    sound,
    table,
    tensorboard,
    tiles,
)
from job.reports.heard import at_step
from job.reports.plots import panels, svg
from tuning.results import Results, draw_metric, draw_schedules, known, short_key

HEARD = 3  # trials whose sounds are on the page
SOUNDS = 3  # of each of them
FILES = ("best.yaml", "trials.csv", "history.csv")


def save_page(
    results: Results, folder: str, population: bool, baseline: Mapping[str, Any] | None
) -> None:
    """Write sweep.html.

    Args:
        results: results of the sweep.
        folder: folder or URI of the sweep.
        population: whether values changed while the trials trained.
        baseline: the values that the sweep started from; None if the space lacks them.

    Raises:
        OSError: it cannot be written, or the trials' runs cannot be read.
    """
    made = sweep_page(results, folder, population, baseline)
    put_file(below(folder, "sweep.html"), made.encode())


def sweep_page(
    results: Results, folder: str, population: bool, baseline: Mapping[str, Any] | None
) -> str:
    """Return the page.

    Args: see `save_page`.
    """
    statuses = results.trials["status"].value_counts()
    counted = ", ".join(f"{count} {status}" for status, count in statuses.items())
    started = _baseline(results, baseline)
    plots = [_plot(results, key, draw_metric, f"{results.metric} by") for key in results.space]
    if population:
        plots += [_plot(results, key, draw_schedules, "schedule of") for key in results.space]
    return page(
        folder.rstrip("/").rpartition("/")[2],
        [
            tiles(_tiles(results, started)),
            section("Trials", filter_box("Show only"), _ranking(results, folder, started)),
            section(
                "Courses", drawing(f"{results.metric} over the steps", _curves(results, started))
            ),
            _sounds(results, folder),
            section("Searched values", element("div", *plots, class_="cards small")),
            section("", _everything(results)),
        ],
        kind="Sweep",
        lead=f"{len(results.trials)} trials ({counted}), by {results.metric}; smaller is better",
        links=(
            *(element("a", name, href=name) for name in FILES),
            tensorboard(below(folder, "tune")),
        ),
    )


def _baseline(results: Results, values: Mapping[str, Any] | None) -> str | None:
    """Return the trial with the values that the sweep started from, if there is one."""
    if values is None:
        return None
    for row in results.trials.to_dict("records"):
        if all(_same(row[key], value) for key, value in values.items()):
            return row["trial"]
    return None


def _same(shown: Any, value: Any) -> bool:
    """Tell whether a table shows this value: tuples are lists there, and None is NaN."""
    if isinstance(value, float) and isinstance(shown, int | float):
        return math.isclose(shown, value, rel_tol=1e-9)
    return known(shown) == (list(value) if isinstance(value, tuple) else value)


def _tiles(results: Results, started: str | None) -> list[Tile]:
    """Return the best score, and that of the configuration that the sweep started from."""
    scores = dict(zip(results.trials["trial"], results.trials[results.metric], strict=True))
    best = results.trials.iloc[0]
    if not math.isfinite(best[results.metric]):
        return []
    found = [
        Tile(f"best {results.metric}", f"{best[results.metric]:.4f}", note=f"trial {best['trial']}")
    ]
    if started is not None and math.isfinite(scores[started]):
        gain = scores[started] - best[results.metric]
        note = f"the best one is lower by {gain:.4g}" if gain > 0 else "nothing was better"
        found.append(Tile("baseline", f"{scores[started]:.4f}", note=note))
    return found


def _ranking(results: Results, folder: str, started: str | None) -> Html:
    """Return rank, score and searched values of the trials."""
    trials = results.trials.to_dict("records")
    base = next((row[results.metric] for row in trials if row["trial"] == started), None)
    rows = []
    for rank, row in enumerate(trials, start=1):
        name = link(row["trial"], below(folder, f"runs/{row.get('run', row['trial'])}"), folder)
        badge = element("span", "baseline", class_="badge") if row["trial"] == started else ""
        values = [_cell(row[key]) for key in results.space]
        status = element("span", row["status"], title=row["error"])
        score = _score(row[results.metric], base)
        rows.append(
            [
                rank,
                Html("{} {}").format(name, badge),
                score,
                *values,
                _cell(row.get("step")),
                status,
            ]
        )
    head = ("rank", "trial", results.metric, *map(short_key, results.space), "step", "status")
    return table(head, rows, absent="-", sortable=True)


def _score(value: float, base: float | None) -> Html | None:
    """Return a trial's score, marked against the baseline's."""
    if not math.isfinite(value):
        return None
    if base is None or not math.isfinite(base) or value == base:
        return marked(f"{value:.4f}", "")
    return marked(f"{value:.4f}", "better" if value < base else "worse")


def _cell(value: Any) -> Any:
    """Return a value of a table: numbers with four digits."""
    value = known(value)
    if isinstance(value, float):
        return marked(f"{value:.4g}", "")
    return value if isinstance(value, int | None) else str(value)


def _curves(results: Results, started: str | None) -> Html:
    """Return the metric of all trials over their steps; the best and the baseline stand out."""
    figure, (panel,) = panels(1, size=(7, 2.8))
    best = results.trials["trial"].iloc[0]
    looks: dict[str, dict[str, Any]] = {
        best: {"color": "tab:blue", "linewidth": 2, "label": f"{best} (best)", "zorder": 3},
    }
    if started is not None and started != best:
        base = {"color": "tab:orange", "linestyle": "--", "label": f"{started} (baseline)"}
        looks[started] = base | {"zorder": 3}
    for trial, own in results.history.groupby("trial"):
        look = looks.get(str(trial), {"color": "0.6", "linewidth": 0.8})
        panel.plot(own["step"], own[results.metric], marker=".", **look)
    panel.set_xlabel("global step")
    panel.set_ylabel(results.metric)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=8)
    return svg(figure, f"{results.metric} over the steps")


def _plot(
    results: Results, key: str, draw: Callable[[Axes, Results, str], None], name: str
) -> Html:
    """Return one panel of one key."""
    figure, (panel,) = panels(1)
    draw(panel, results, key)
    title = f"{name} {short_key(key)}"
    return drawing(title, svg(figure, title))


def _sounds(results: Results, folder: str) -> Html:
    """Return what the best trials spoke at their best validation."""
    cards = []
    for rank, row in enumerate(results.trials.to_dict("records")[:HEARD], start=1):
        if not math.isfinite(row[results.metric]) or row["status"] == "failed":
            continue
        found = at_step(below(folder, f"runs/{row['run']}"), int(row["step"]))[:SOUNDS]
        players = [sound(f"{each.name}: {each.text}".rstrip(": "), each.wav) for each in found]
        title = f"{rank}. {row['trial']}: {results.metric} {row[results.metric]:.4f}"
        if players:
            cards.append(element("div", element("h3", title), *players))
    return section(
        "The best trials speak", element("div", *cards, class_="cards small") if cards else ""
    )


def _everything(results: Results) -> Html:
    """Return the whole table of the trials, folded up."""
    rows = [[_cell(cell) for cell in row] for row in results.trials.itertuples(index=False)]
    whole = table(list(results.trials), rows, absent="-")
    return element("details", element("summary", "All columns of trials.csv"), whole)
