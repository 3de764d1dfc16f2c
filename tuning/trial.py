"""What one trial does: elastic runs in the sweep's folder, whose validations are told to Ray Tune.

A trial may be ended at any time and be started again, and does nothing twice: a run continues from
its newest checkpoint. A member of a population trains in chunks. Between two of them it may be told
to continue from another member's checkpoint with other values: it does so in a new run, which
begins with a copy of that checkpoint.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import Checkpoint
from ray.util.queue import Empty, Queue

from data.files import below, located, reachable
from data.stream.datasets import on_this_node
from job.on_ray.private import TrainRunContext, UserCallback
from job.settings.cli import overridden
from job.settings.config import Config
from job.settings.paths import run_folder
from job.train import train
from trainable.config import CheckpointConfig
from trainable.run.format import checkpoint_name, step_of
from trainable.run.storage import checkpoints, newest_good, told_of
from tuning.search import VALIDATION

PLACE = "place.json"
GENERATIONS = 3  # of chunks whose last checkpoint is kept, for members that take it over later


@dataclass(frozen=True)
class TrialConfig:
    """What all trials of a sweep have in common.

    Attributes:
        cfg: the configuration into which their values are put; run.storage is the folder of their
            runs.
        metric: score that the trials are judged by.
        interval: validations per chunk, in a population; None: a trial trains in one go.
    """

    cfg: Config
    metric: str
    interval: int | None = None

    @property
    def validations(self) -> int:
        """How many a whole trial has."""
        return self.number(self.cfg.train.max_steps)

    def number(self, step: int) -> int:
        """Return the number of the validation after a step, from 1."""
        return math.ceil(step / self.cfg.eval.every_steps)

    def run(self, name: str, values: Mapping[str, Any], **train: Any) -> Config:
        """Return the configuration of a trial's run.

        Which trials end early is decided by the schedule, so eval.stop_after is off.

        Args:
            name: name of the run.
            values: values of the space's keys.
            **train: further keys of train.
        """
        cfg = overridden(self.cfg, values)
        return replace(
            cfg,
            run=replace(cfg.run, name=name),
            train=replace(cfg.train, **train),
            eval=replace(cfg.eval, stop_after=0),
        )

    def told(self, run: str, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Return what Tune is told of a validation; a missing or NaN score is the worst there is.

        Args:
            run: name of the run.
            step: global steps done.
            metrics: scores of the validation, losses and rates of the step.
        """
        told = {self.metric: math.inf, **metrics}
        return told | {"run": run, "step": step, VALIDATION: self.number(step)}


def run_trial(values: dict[str, Any], trial: TrialConfig) -> None:
    """Train with these values; called by Tune, in a process of the trial's own."""
    if trial.interval is None:
        train_in_one_go(values, trial)
    else:
        train_in_chunks(values, trial, trial.interval)


class Reports(UserCallback):
    """Passes on what the workers report of validations; Ray Train's controller calls it."""

    def __init__(self, queue: Queue):
        self.queue = queue

    def after_report(
        self,
        run_context: TrainRunContext,
        metrics: list[dict[str, Any]],
        checkpoint: Checkpoint | None,
    ) -> None:
        """Pass on a report of rank 0, unless it has no scores.

        A report of a checkpoint or of a line of the log alone has none.
        """
        if any(tag.startswith("eval/") for tag in metrics[0]):
            self.queue.put((metrics[0]["step"], metrics[0]))


def train_in_one_go(values: dict[str, Any], trial: TrialConfig) -> None:
    """Train a whole trial as one run."""
    cfg = trial.run(tune.get_context().get_trial_id(), values)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    last = 0
    # train() blocks, and only this thread may report to Tune
    with ThreadPoolExecutor(1) as background:
        training = background.submit(train, cfg, [Reports(queue)])
        while not (training.done() and queue.empty()):
            with suppress(Empty):
                last, metrics = queue.get(timeout=1)
                tune.report(trial.told(cfg.run.name, last, metrics))
        # raises what the training raised
        training.result()

    goal = cfg.train.max_steps
    if last < goal:
        # the run had ended before, and its driver before it could tell
        tune.report(trial.told(cfg.run.name, goal, _metrics(cfg, goal)))


@dataclass(frozen=True)
class Place:
    """Where a member of a population stands.

    Attributes:
        trial: the member that came there.
        values: values with which it came there.
        run: run in which it came there.
        step: global steps done.
    """

    trial: str
    values: dict[str, Any]
    run: str
    step: int

    def goes_on_as(self, trial: str, values: dict[str, Any]) -> "Place":
        """Return the place of a trial that continues from here with these values.

        It stays in the same run if trial and values are the same.
        """
        if (trial, json.dumps(values)) == (self.trial, json.dumps(self.values)):
            return self
        # the same name if Tune starts this trial again, so that the run continues
        digest = hashlib.sha256(json.dumps([asdict(self), values]).encode()).hexdigest()
        return Place(trial, values, f"{trial}-{self.step}-{digest[:6]}", self.step)


def train_in_chunks(values: dict[str, Any], trial: TrialConfig, interval: int) -> None:
    """Train a member of a population, and tell Tune after each chunk where it ended.

    Args:
        values: values of the space's keys.
        trial: what all trials have in common.
        interval: validations per chunk.
    """
    member = tune.get_context().get_trial_id()
    came_from = _told_place()
    place = Place(member, values, member, 0)
    if came_from is not None:
        place = came_from.goes_on_as(member, values)
        if place.run != came_from.run:
            source = trial.run(came_from.run, values)
            adopt(source, trial.run(place.run, values), place.step)

    goal = trial.cfg.train.max_steps
    # other members may be told to continue from a checkpoint some chunks later
    checkpoint = _kept_longer(trial, interval)
    while place.step < goal:
        end = min(place.step + interval * trial.cfg.eval.every_steps, goal)
        place = replace(place, step=end)
        cfg = trial.run(place.run, values, max_steps=end, checkpoint=checkpoint)
        train(cfg)
        _tell(trial.told(place.run, end, _metrics(cfg, end)), place)


def _kept_longer(trial: TrialConfig, interval: int) -> CheckpointConfig:
    """Return settings under which the checkpoints of the last GENERATIONS of chunks are kept."""
    checkpoint = trial.cfg.train.checkpoint
    # a chunk has at most so many: those on schedule and those of validations
    scheduled = math.ceil(trial.cfg.eval.every_steps / checkpoint.every_steps)
    most = GENERATIONS * interval * (1 + scheduled)
    return replace(checkpoint, keep=max(most, checkpoint.keep))


def _tell(told: dict[str, Any], place: Place) -> None:
    """Report a chunk to Tune, with the place where it ended."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PLACE).write_text(json.dumps(asdict(place)), encoding="utf-8")
        tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))


def _told_place() -> Place | None:
    """Return where Tune wants this trial to continue; None at a trial's start."""
    told = tune.get_checkpoint()
    if told is None:
        return None
    with told.as_directory() as folder:
        return Place(**json.loads((Path(folder) / PLACE).read_text(encoding="utf-8")))


def adopt(source: Config, target: Config, step: int) -> None:
    """Begin a run with a copy of another run's checkpoint, unless it has begun.

    Args:
        source: configuration of the run that has the checkpoint.
        target: configuration of the run that begins.
        step: global steps of the checkpoint.
    """
    # Tune may have started this trial before
    if newest_good(run_folder(target)) is not None:
        return
    ours = below(run_folder(target), checkpoint_name(step))
    theirs = below(run_folder(source), checkpoint_name(step))
    with reachable(ours):
        fs, root = located(ours)
        _, origin = located(theirs)
        fs.makedirs(root, exist_ok=True)
        for path in fs.find(origin):
            fs.cp_file(path, f"{root}/{path.rpartition('/')[2]}")


def _metrics(cfg: Config, step: int) -> dict[str, float]:
    """Return what a run's checkpoint tells of its step: the validation's scores, and losses."""
    found = [uri for uri in checkpoints(run_folder(cfg)) if step_of(uri) == step]
    return {tag: value for uri in found for tag, value in told_of(uri).items()}
