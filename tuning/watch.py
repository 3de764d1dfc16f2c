"""What a sweep shows on the console while its trials train."""

import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from job.on_ray.scaling import give_back
from job.reports.console import columns
from job.reports.progress import clock
from tuning.results import console_table
from tuning.search import VALIDATION
from tuning.space import Space

TABLE_S = 10.0  # between two tables on the console
# Tune's words -> those of the lines below the table, where they are others
STATUSES = {Trial.TERMINATED: "ended", Trial.ERROR: "failed"}


class Watch(Callback):
    """Shows the trials on the console as they train, and frees what ended ones had reserved."""

    # of a sweep that older code has begun, whose callback Tune restores as it was pickled
    validations = total = seen = 0
    began = 0.0

    def __init__(self, space: Space, metric: str, runs: str, validations: int = 0):
        """Watch a sweep.

        Args:
            space: what is searched.
            metric: score that is minimised.
            runs: path of the folder of the trials' runs, in its storage.
            validations: how many a whole trial has.
        """
        self.space = space
        self.metric = metric
        self.runs = runs
        self.shown_at = 0.0
        self.validations = validations

    def setup(self, *given: Any, total_num_samples: int | None = None, **info: Any) -> None:
        """Take note of the number of trials."""
        self.total = total_num_samples or 0

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the trials after a validation, unless they were shown a moment ago."""
        self.seen += 1
        if self.seen == 1:
            self.began = time.monotonic()
        if time.monotonic() > self.shown_at + TABLE_S:
            self.shown_at = time.monotonic()
            self.show(trials)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Free what a trial had reserved that has finished or was stopped in mid-training."""
        give_back(f"{self.runs}/{trial.trial_id}")
        self.show(trials)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Free what a failed trial had reserved; the others continue."""
        give_back(f"{self.runs}/{trial.trial_id}")
        print(f"trial {trial.trial_id} failed: {trial.get_error()}")

    def show(self, trials: list[Trial]) -> None:
        """Print a table of the trials, and how far the sweep is."""
        rows = [self._row(trial) for trial in trials]
        print(fitting_table(rows, self.space, columns()), flush=True)
        print(self.stands(trials), flush=True)

    def stands(self, trials: list[Trial]) -> str:
        """Return how many trials have ended, which is the best, and the time that is left."""
        total = max(self.total, len(trials))
        ended = [trial for trial in trials if trial.is_finished()]
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        told = [f"{len(ended)} of {total} trials have ended, {running} train"]
        scores = {t.trial_id: t.metric_analysis.get(self.metric, {}).get("min") for t in trials}
        known = {trial: score for trial, score in scores.items() if score is not None}
        if known:
            best = min(known, key=lambda trial: known[trial])
            told.append(f"best {self.metric} {known[best]:.4g} by {best}")
        going_on = [trial for trial in trials if not trial.is_finished()]
        left = self.validations * (total - len(ended))
        left -= sum((trial.last_result or {}).get(VALIDATION, 0) for trial in going_on)
        if self.seen > 1 and left > 0:
            pace = (time.monotonic() - self.began) / (self.seen - 1)
            told.append(f"at most {clock(pace * left)} left")
        return "\n".join(told)

    def _row(self, trial: Trial) -> dict[str, Any]:
        """Return a trial's row of the table."""
        last = trial.last_result or {}
        scores = trial.metric_analysis.get(self.metric, {})
        return {
            "trial": trial.trial_id,
            "status": STATUSES.get(trial.status, trial.status.lower()),
            "step": last.get("step"),
            self.metric: last.get(self.metric),
            "lowest": scores.get("min"),
            **{key: trial.config.get(key) for key in self.space},
        }


def fitting_table(rows: list[dict[str, Any]], space: Space, width: float) -> str:
    """Return a table of trials with as many keys of the space as fit the terminal.

    Args:
        rows: one per trial; all have the same columns, the space's keys last.
        space: what is searched.
        width: columns of the terminal.
    """
    left_out: set[str] = set()
    keys = list(space)
    for shown in range(len(keys), -1, -1):
        left_out = set(keys[shown:])
        part = [{key: row[key] for key in row if key not in left_out} for row in rows]
        made = console_table(part, {key: space[key] for key in keys[:shown]})
        if max(map(len, made.splitlines()), default=0) <= width:
            break
    note = f"\n(and {len(left_out)} more keys of the space: trials.csv)" if left_out else ""
    return made + note
