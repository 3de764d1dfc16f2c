"""List runs with step, best score and state: `python -m job.runs runs`, `... s3://bucket/runs`."""

from collections.abc import Sequence
from datetime import UTC, datetime

from job.reports.console import cell, table
from job.reports.runs import Run, runs_and_others
from job.settings.cli import Arguments, run
from job.settings.paths import is_shown

HEAD = ("run", "state", "step", "of", "best", "score of", "written")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    found, wrong = runs_and_others(command_line().parse_args(list(argv)).storage)
    now = datetime.now(UTC)
    print(table(HEAD, [cells(each, now) for each in found]))
    for name, problem in wrong.items():
        print(f"not shown: {printable(name)}: {problem}")
    return 0


def command_line() -> Arguments:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.runs", "List the runs at a storage URI.")
    made.add_argument("storage", help="folder or URI: run.storage")
    return made


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
