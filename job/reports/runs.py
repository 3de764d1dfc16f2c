"""The runs at a storage URI, as their folders show them; reading them needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import fsspec
import yaml

from data.files import below, reachable, read_file
from trainable.run.format import CHECKPOINTS, CHECKSUMS, CONFIG, METRICS, METRICS_PARTS, step_of
from trainable.run.heartbeat import Status, read_status
from trainable.run.storage import checkpoints, ranking, scores_of

# since the last write; a worker that hangs is ended after ten minutes (train.hang_timeout_s)
RUNS_WITHIN = timedelta(minutes=15)


@dataclass(frozen=True)
class Run:
    """A run as its folder shows it.

    Attributes:
        name: name of the folder.
        step: global steps of its newest checkpoint; 0 without one.
        goal: train.max_steps.
        best: the best score among its checkpoints; None without one.
        metric: the metric of that score.
        written: time of the last write.
        status: what its driver has told last; None if it has told nothing, as older code.
    """

    name: str
    step: int
    goal: int
    best: float | None
    metric: str
    written: datetime
    status: Status | None = None

    def state(self, now: datetime) -> str:
        """Return `finished`, `running`, `stopped`, `failed`, or `lost` if no driver answers.

        Of a run of older code, `running` if it wrote lately, or else `stopped`.
        """
        if self.step >= self.goal:
            return "finished"
        if self.status is not None:
            return self.status.seen(now)
        return "running" if now - self.written < RUNS_WITHIN else "stopped"


def runs(storage: str) -> list[Run]:
    """Return all runs in a folder or URI, the last written first.

    Raises:
        ValueError: it holds none.
        OSError: it cannot be read.
    """
    with reachable(storage):
        fs, root = fsspec.core.url_to_fs(storage)
        configs = fs.glob(f"{root.rstrip('/')}/*/{CONFIG}")
    if not configs:
        raise ValueError(
            f"{storage} holds no runs, which are folders with a {CONFIG}: give the value of "
            "run.storage"
        )
    names = sorted(path.split("/")[-2] for path in configs)
    found = [describe(below(storage, name)) for name in names]
    return sorted(found, key=lambda run: run.written, reverse=True)


def describe(folder: str) -> Run:
    """Return what the folder of a run shows.

    Raises:
        ValueError: its config.yaml is not a run's.
        OSError: it cannot be read.
    """
    config = yaml.safe_load(read_file(below(folder, CONFIG))) or {}
    train = config.get("train")
    if not isinstance(train, dict) or "max_steps" not in train:
        raise ValueError(f"{below(folder, CONFIG)} has no train.max_steps: it is not a run's")

    # newest first; damaged ones too, as verifying them would take their download
    saved = checkpoints(folder)
    return Run(
        name=folder.rpartition("/")[2],
        step=step_of(saved[0]) if saved else 0,
        goal=train["max_steps"],
        best=_best_score(saved, config),
        metric=ranking(config).metric,
        written=last_write(folder),
        status=read_status(folder),
    )


def _best_score(saved: list[str], config: Mapping[str, Any]) -> float | None:
    """Return the best score of a run's checkpoints; None if none has one."""
    cfg = ranking(config)
    scored = [scores for scores in map(scores_of, saved) if cfg.metric in scores]
    best = min(scored, key=cfg.cost, default=None)  # type: ignore[arg-type]  # all have the metric
    return None if best is None else best[cfg.metric]


def last_write(folder: str) -> datetime:
    """Return when the configuration, the newest metrics or the newest checkpoint were written.

    Raises:
        OSError: the folder cannot be read.
    """
    kinds = (CONFIG, METRICS, METRICS_PARTS, f"{CHECKPOINTS}/{CHECKSUMS}")
    with reachable(folder):
        fs, root = fsspec.core.url_to_fs(folder)
        # names grow with the step, so the last of a kind is its newest
        found = [sorted(fs.glob(f"{root}/{kind}")) for kind in kinds]
        return max(fs.modified(paths[-1]) for paths in found if paths)
