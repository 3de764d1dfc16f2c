"""List runs with step, best score and state: `python -m job.runs runs`, `... s3://bucket/runs`."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from job.reports.console import cell, table
from job.reports.runs import Run, runs
from job.settings.cli import run

HEAD = ("run", "state", "step", "of", "best", "score of", "written")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser(
        "python -m job.runs", description="List the runs at a storage URI."
    )
    made.add_argument("storage", help="folder or URI: run.storage")
    found = runs(made.parse_args(list(argv)).storage)
    now = datetime.now(UTC)
    print(table(HEAD, [cells(each, now) for each in found]))
    return 0


def cells(each: Run, now: datetime) -> tuple[str, ...]:
    """Return a run's row of the table."""
    return (
        each.name,
        each.state(now),
        str(each.step),
        str(each.goal),
        cell(each.best),
        each.metric,
        f"{each.written:%Y-%m-%d %H:%M} UTC",
    )


if __name__ == "__main__":
    run(main)
