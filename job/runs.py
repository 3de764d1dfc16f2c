"""List runs with step, best score and state: `python -m job.runs runs`, `... s3://bucket/runs`.

`--html FILE` writes them as one page too, with the curve of each run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from data.files import put_file
from job.reports.console import cell, table
from job.reports.runs import Run, runs_and_others
from job.settings.cli import Arguments, run
from job.settings.paths import is_shown, output_file

HEAD = ("run", "state", "step", "of", "best", "score of", "written")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = Arguments("python -m job.runs", "List the runs at a storage URI.")
    made.add_argument("storage", help="folder or URI: run.storage")
    made.add_argument("--html", help="file or URI of a page to write, with each run's curve")
    args = made.parse_args(list(argv))
    out = None if args.html is None else output_file("--html", args.html)
    found, wrong = runs_and_others(args.storage)
    now = datetime.now(UTC)
    print(table(HEAD, [cells(each, now) for each in found]))
    for name, problem in wrong.items():
        print(f"not shown: {printable(name)}: {problem}")
    if out is not None:
        from job.reports.index import index_page  # it draws, and the list alone is quick

        shown = index_page(found, wrong, args.storage, out.rpartition("/")[0], now)
        put_file(out, shown.encode(errors="backslashreplace"))
        print(out)
    return 0


def cells(each: Run, now: datetime) -> tuple[str, ...]:
    """Return a run's row of the table."""
    return (
        printable(each.name),
        each.state(now),
        str(each.step),
        str(each.goal),
        cell(each.best),
        each.metric,
        f"{each.written:%Y-%m-%d %H:%M} UTC",
    )


def printable(name: str) -> str:
    """Return the name of a folder as it may stand in a line."""
    return name if all(map(is_shown, name)) else repr(name)


if __name__ == "__main__":
    run(main)
