"""An index of runs as one HTML page: state, progress, best score and curve of each."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from data.files import below, located
from data.html_page import (
    Html,
    Tile,
    bar,
    drawing,
    element,
    filter_box,
    link,
    page,
    section,
    table,
    tensorboard,
    tiles,
)
from job.reports.plots import curves, svg
from job.reports.runs import AT_A_TIME, Run
from trainable.learning.judgement import Validation
from trainable.run.format import CONFIG, CheckpointError
from trainable.run.storage import names_in, read_state

CURVES = 60  # runs with a curve; a page of a thousand would take minutes to draw
EVALUATION = "evaluation_"  # folders that job.evaluate writes begin so


def index_page(
    found: Sequence[Run], wrong: Mapping[str, str], storage: str, folder: str, now: datetime
) -> str:
    """Return the page.

    Args:
        found: the runs, the last written first.
        wrong: name -> what is wrong, of folders that are not shown.
        storage: folder or URI of the runs.
        folder: folder or URI of the page.
        now: the time.

    Raises:
        OSError: the runs cannot be read.
    """
    drawn = found[:CURVES]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        validations = [*pool.map(_validations, drawn), *[()] * len(found[CURVES:])]
        reports = [*pool.map(_reports, [below(storage, run.name) for run in found])]
    cards = [
        _card(run, own, names, below(storage, run.name), folder, now)
        for run, own, names in zip(found, validations, reports, strict=True)
    ]
    states = [run.state(now) for run in found]
    counted = {state: states.count(state) for state in dict.fromkeys(states)}
    return page(
        storage.rstrip("/").rpartition("/")[2] or storage,
        [
            tiles([Tile(state, f"{count}") for state, count in counted.items()]),
            section(
                "Runs",
                filter_box("Show only"),
                element("div", *cards, class_="cards"),
                note="The last written one first.",
            ),
            section("Not shown", table(("folder", "why"), wrong.items()) if wrong else ""),
        ],
        kind="Runs",
        lead=f"{len(found)} runs, as of {now:%Y-%m-%d %H:%M} UTC",
        links=(tensorboard(storage),),
    )


def _validations(run: Run) -> Sequence[Validation]:
    """Return the validations that a run's newest checkpoint remembers."""
    if run.newest is None:
        return ()
    try:
        return read_state(run.newest).validations
    except (CheckpointError, FileNotFoundError):
        return ()  # the list tells the newest step of a damaged one too


def _reports(run: str) -> Sequence[str]:
    """Return the names of a run's evaluations."""
    fs, root = located(run)
    return [name for name in names_in(fs, root) if name.startswith(EVALUATION)]


def _card(
    run: Run,
    validations: Sequence[Validation],
    reports: Sequence[str],
    place: str,
    folder: str,
    now: datetime,
) -> Html:
    state = run.state(now)
    best = "no score yet" if run.best is None else f"best {run.metric} {run.best:.4g}"
    links = [link("folder", place, folder), link("configuration", below(place, CONFIG), folder)]
    if run.newest is not None:
        links.append(link("newest checkpoint", run.newest, folder))
    links += [
        link(
            f"evaluation at step {int(name.removeprefix(EVALUATION))}"
            if name.removeprefix(EVALUATION).isdigit()
            else name,
            below(place, f"{name}/evaluation.html"),
            folder,
        )
        for name in reports
    ]
    return element(
        "article",
        element("h3", run.name, " ", element("span", state, class_="badge")),
        element("p", f"step {run.step} of {run.goal}, {best}", class_="note"),
        bar(min(1.0, run.step / max(1, run.goal))),
        _curve(validations),
        element("nav", *links),
        element("p", f"written {run.written:%Y-%m-%d %H:%M} UTC", class_="note"),
        class_="card",
        data_words=f"{run.name} {state} {run.metric}",
    )


def _curve(validations: Sequence[Validation]) -> Html:
    """Return a plot of the mel loss over a run, if it was validated twice."""
    lines = {
        name: (
            [v.step for v in validations if getattr(v, field) is not None],
            [getattr(v, field) for v in validations if getattr(v, field) is not None],
        )
        for name, field in (("validation", "mel"), ("training", "train_mel"))
    }
    shown = {name: points for name, points in lines.items() if len(points[0]) > 1}
    if not shown:
        return Html()
    title = "mel L1 over the global steps"
    return drawing(title, svg(curves(shown, "", "", size=(5, 2)), title))
