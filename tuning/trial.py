"""What one trial does: elastic runs of its own in the sweep's folder, whose validations are told to Ray Tune.

A trial may be ended at any time and be started again, and does nothing twice: a run continues from
its newest checkpoint. A member of a population trains in chunks. Between two of them it may be told
to go on from another member's checkpoint with other values: then it does so in a new run, which
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

import fsspec
from ray import tune
from ray.train import Checkpoint
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2.api.callback import UserCallback
from ray.util.queue import Empty, Queue

from data.files import below, reachable
from data.stream.pipeline import on_this_node
from job.settings.cli import overridden
from job.settings.config import Config
from job.settings.paths import run_folder
from job.train import train
from trainable.run.format import checkpoint_name, step_of
from trainable.run.storage import checkpoints, newest_good, scores_of
from tuning.search import VALIDATION

PLACE = "place.json"
GENERATIONS = 3  # of chunks whose last checkpoint is kept, for members that take it over later


@dataclass(frozen=True)
class TrialConfig:
    """What all trials of a sweep have in common.

    Attributes:
        cfg: the configuration that their values are put into; run.storage is the folder of their
            runs.
        metric: that the trials are judged by.
        interval: validations of a chunk, in a population; None: a trial trains in one go.
    """

    cfg: Config
    metric: str
    interval: int | None = None

    @property
    def validations(self) -> int:
        """How many a whole trial has."""
        return self.number(self.cfg.train.max_steps)

    def number(self, step: int) -> int:
        """Of the validation after a step."""
        return math.ceil(step / self.cfg.eval.every_steps)

    def run(self, name: str, values: Mapping[str, Any], **train: Any) -> Config:
        """The configuration of a trial's run; which trials end early is the schedule's business, not eval.stop_after's.

        Args:
            name: of the run.
            values: of the space's keys.
            **train: further keys of train.
        """
        cfg = overridden(self.cfg, values)
        return replace(
            cfg,
            run=replace(cfg.run, name=name),
            train=replace(cfg.train, **train),
            eval=replace(cfg.eval, stop_after=0),
        )

    def told(self, run: str, step: int, scores: Mapping[str, float]) -> dict[str, Any]:
        """What Tune is told of a validation; a score that is not finite is the worst there is."""
        return {
            self.metric: math.inf,
            **scores,
            "run": run,
            "step": step,
            VALIDATION: self.number(step),
        }


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
        """Pass on a report, which all workers make alike; one of a checkpoint alone has no scores."""
        scores = {tag: value for tag, value in metrics[0].items() if tag.startswith("eval/")}
        if scores:
            self.queue.put((metrics[0]["step"], scores))


def train_in_one_go(values: dict[str, Any], trial: TrialConfig) -> None:
    """A whole trial as one run."""
    cfg = trial.run(tune.get_context().get_trial_id(), values)
    queue, told = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()}), 0
    with ThreadPoolExecutor(1) as background:
        training = background.submit(train, cfg, [Reports(queue)])
        while not (training.done() and queue.empty()):
            with suppress(Empty):
                told, scores = queue.get(timeout=1)
                tune.report(trial.told(cfg.run.name, told, scores))
        training.result()
    if told < cfg.train.max_steps:  # it had ended before, and its driver before it could tell
        tune.report(
            trial.told(cfg.run.name, cfg.train.max_steps, _scores(cfg, cfg.train.max_steps))
        )


@dataclass(frozen=True)
class Place:
    """Where a member of a population stands.

    Attributes:
        trial: which member came there.
        values: with which values.
        run: in which run.
        step: after how many global steps.
    """

    trial: str
    values: dict[str, Any]
    run: str
    step: int

    def goes_on_as(self, trial: str, values: dict[str, Any]) -> "Place":
        """The place of a trial that goes on from here with these values: in the same run if both are the same."""
        if (trial, json.dumps(values)) == (self.trial, json.dumps(self.values)):
            return self
        digest = hashlib.sha256(json.dumps([asdict(self), values]).encode()).hexdigest()
        return Place(trial, values, f"{trial}-{self.step}-{digest[:6]}", self.step)


def train_in_chunks(values: dict[str, Any], trial: TrialConfig, interval: int) -> None:
    """A member of a population: chunk after chunk, each told to Tune with the place where it ended."""
    every, goal = trial.cfg.eval.every_steps, trial.cfg.train.max_steps
    member = tune.get_context().get_trial_id()
    came_from = _told_place()
    place = (
        Place(member, values, member, 0)
        if came_from is None
        else came_from.goes_on_as(member, values)
    )
    # at most so many checkpoints a chunk: those on schedule and those of validations
    kept = GENERATIONS * interval * (1 + math.ceil(every / trial.cfg.train.checkpoint.every_steps))
    checkpoint = replace(
        trial.cfg.train.checkpoint, keep=max(kept, trial.cfg.train.checkpoint.keep)
    )
    if came_from is not None and came_from.run != place.run:
        adopt(trial.run(came_from.run, values), trial.run(place.run, values), place.step)
    while place.step < goal:
        place = replace(place, step=min(place.step + interval * every, goal))
        cfg = trial.run(place.run, values, max_steps=place.step, checkpoint=checkpoint)
        train(cfg)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / PLACE).write_text(json.dumps(asdict(place)))
            told = trial.told(place.run, place.step, _scores(cfg, place.step))
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))


def _told_place() -> Place | None:
    """Where Tune wants this trial to go on; None at a trial's start."""
    told = tune.get_checkpoint()
    if told is None:
        return None
    with told.as_directory() as folder:
        return Place(**json.loads((Path(folder) / PLACE).read_text()))


def adopt(source: Config, target: Config, step: int) -> None:
    """Begin a run with a copy of another one's checkpoint, unless it has begun."""
    if newest_good(run_folder(target)) is not None:
        return
    ours = below(run_folder(target), checkpoint_name(step))
    with reachable(ours):
        fs, root = fsspec.core.url_to_fs(ours)
        _, theirs = fsspec.core.url_to_fs(below(run_folder(source), checkpoint_name(step)))
        fs.makedirs(root, exist_ok=True)
        for path in fs.find(theirs):
            fs.cp_file(path, f"{root}/{path.rpartition('/')[2]}")


def _scores(cfg: Config, step: int) -> dict[str, float]:
    """Of the validation after a step of a run, from its checkpoint."""
    found = [uri for uri in checkpoints(run_folder(cfg)) if step_of(uri) == step]
    return {tag: value for uri in found for tag, value in scores_of(uri).items()}
