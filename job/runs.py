"""The runs at a storage URI, with step, best score and state: `python -m job.runs runs`, `... s3://bucket/runs`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import fsspec
import yaml

from data.files import below, reachable, read_file
from job.reports.console import table
from job.settings.cli import run
from trainable.run.format import step_of
from trainable.run.storage import checkpoints, ranking, scores_of

# of the last write; hangs are ended after ten (train.hang_timeout_s)
RUNS_WITHIN = timedelta(minutes=15)


@dataclass(frozen=True)
class Run:
    """A run as its folder shows it.

    Attributes:
        name: of its folder.
        step: of its newest checkpoint; 0 without one.
        goal: train.max_steps.
        best: the best score among its checkpoints; None without one.
        metric: what the score is.
        written: when it wrote last.
    """

    name: str
    step: int
    goal: int
    best: float | None
    metric: str
    written: datetime

    def state(self, now: datetime) -> str:
        """`finished`, `running` where it wrote lately, or `stopped`."""
        if self.step >= self.goal:
            return "finished"
        return "running" if now - self.written < RUNS_WITHIN else "stopped"


def main(argv: Sequence[str]) -> int:
    """The command."""
    made = argparse.ArgumentParser(
        "python -m job.runs", description="List the runs at a storage URI."
    )
    made.add_argument("storage", help="folder or URI: run.storage")
    found, now = runs(made.parse_args(list(argv)).storage), datetime.now(UTC)
    print(
        table(
            ("run", "state", "step", "of", "best", "score of", "written"),
            [
                (
                    r.name,
                    r.state(now),
                    str(r.step),
                    str(r.goal),
                    "-" if r.best is None else f"{r.best:.4f}",
                    r.metric,
                    f"{r.written:%Y-%m-%d %H:%M} UTC",
                )
                for r in found
            ],
        )
    )
    return 0


def runs(storage: str) -> list[Run]:
    """All runs in a folder or URI, those that wrote last first.

    Raises:
        ValueError: it holds none.
        OSError: it cannot be read.
    """
    with reachable(storage):
        fs, root = fsspec.core.url_to_fs(storage)
        names = sorted(path.split("/")[-2] for path in fs.glob(f"{root.rstrip('/')}/*/config.yaml"))
    if not names:
        raise ValueError(
            f"{storage} holds no runs, which are folders with a config.yaml: give what run.storage was"
        )
    return sorted(
        (describe(below(storage, name)) for name in names),
        key=lambda one: one.written,
        reverse=True,
    )


def describe(folder: str) -> Run:
    """What the folder of a run tells.

    Raises:
        ValueError: its config.yaml is none of ours.
        OSError: it cannot be read.
    """
    config = yaml.safe_load(read_file(below(folder, "config.yaml"))) or {}
    train = config.get("train")
    if not isinstance(train, dict) or "max_steps" not in train:
        raise ValueError(f"{below(folder, 'config.yaml')} has no train.max_steps: it is no run's")
    saved = checkpoints(folder)
    cfg = ranking(config)
    scored = [scores for scores in map(scores_of, saved) if cfg.metric in scores]
    best = min(scored, key=cfg.cost, default=None)  # type: ignore[arg-type]  # all have the metric
    return Run(
        name=folder.rpartition("/")[2],
        step=step_of(saved[0]) if saved else 0,
        goal=train["max_steps"],
        best=None if best is None else best[cfg.metric],
        metric=cfg.metric,
        written=last_write(folder),
    )


def last_write(folder: str) -> datetime:
    """When the configuration, the newest metrics or the newest checkpoint of a run were written.

    Raises:
        OSError: the folder cannot be read.
    """
    with reachable(folder):
        fs, root = fsspec.core.url_to_fs(folder)
        kinds = ("config.yaml", "metrics.jsonl", "metrics/*.jsonl", "checkpoint_*/checksums.json")
        newest = [sorted(found)[-1] for kind in kinds if (found := fs.glob(f"{root}/{kind}"))]
        return max(fs.modified(path) for path in newest)


if __name__ == "__main__":
    run(main)
