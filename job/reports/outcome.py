"""What a run has come to: whether it is finished, and where its results are."""

import shlex

import yaml

from data.files import below, is_local, read_file
from job.settings.config import Config
from job.settings.paths import run_folder
from trainable.learning.judgement import gives_up
from trainable.run.format import (
    CONFIG,
    LOGS,
    METRICS,
    TENSORBOARD,
    TENSORBOARD_EVAL,
    metrics_part,
    step_of,
)
from trainable.run.storage import checkpoints, newest_good, read_state


def is_finished(cfg: Config) -> bool:
    """Return whether the run of this name has nothing left to train, and print why.

    A run is finished after all its steps, or once early stopping has ended it. If a finished run is
    extended by a larger train.max_steps, that is printed too.

    Raises:
        OSError: the run's folder cannot be read.
    """
    folder = run_folder(cfg)
    if not _may_be_finished(cfg, folder) or (newest := newest_good(folder)) is None:
        return False

    name = cfg.run.name
    goal = cfg.train.max_steps
    step = step_of(newest)
    if step >= goal:
        print(
            f"the run {name} is finished: it stands at step {step}, train.max_steps is {goal}. "
            "Nothing is trained; raise train.max_steps to extend it, or choose another run.name"
        )
        return True

    ranks_by = cfg.train.checkpoint.ranks_by
    if gives_up(read_state(newest).validations, cfg.eval.stop_after, ranks_by):
        print(
            f"the run {name} is finished: early stopping at step {step}, "
            f"{cfg.train.checkpoint.metric} did not improve. Nothing is trained; "
            "raise eval.stop_after to continue, or choose another run.name"
        )
        return True

    if step >= described_goal(folder):
        print(
            f"the run {name} was finished at step {step}: it is extended to train.max_steps {goal}"
        )
    return False


def _may_be_finished(cfg: Config, folder: str) -> bool:
    """Return whether it is worth verifying a checkpoint, which takes time on an object store."""
    if cfg.eval.stop_after:
        return True
    found = checkpoints(folder)
    last_goal = min(cfg.train.max_steps, described_goal(folder))
    return bool(found) and step_of(found[0]) >= last_goal


def described_goal(folder: str) -> float:
    """Return train.max_steps of the run's last start; infinity if unknown."""
    try:
        return yaml.safe_load(read_file(below(folder, CONFIG)))["train"]["max_steps"]
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError):
        return float("inf")


def summary(cfg: Config, step: int) -> str:
    """Return lines that tell where everything is, for a run's end.

    Args:
        cfg: configuration of the run.
        step: global steps done.
    """
    folder = run_folder(cfg)
    metrics = METRICS if is_local(folder) else metrics_part("<first step>")
    quoted = shlex.quote(folder)
    speak = f"python -m job.synthesize --checkpoint {quoted} ..."
    places = {
        "shards": cfg.data.shards,
        "checkpoint": next(iter(checkpoints(folder)), "none"),
        "metrics": below(folder, metrics),
        "logs": below(folder, LOGS),
        "TensorBoard": f"{folder}/{TENSORBOARD}  (tensorboard --logdir {quoted})",
        "audio": f"{folder}/{TENSORBOARD_EVAL} (tab Audio), or {speak}",
    }
    lines = [f"  {what:12} {place}" for what, place in places.items()]
    return "\n".join([f"run {cfg.run.name}: step {step} of {cfg.train.max_steps}", *lines])
