"""What a run has come to: whether it is finished, and where its results are."""

import shlex

import yaml

from data.files import below, is_local, read_file
from data.shards.manifest import ManifestError, read_manifest
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
from trainable.run.storage import BEST, checkpoints, newest_good, read_state

SAYS = {"EN": "Hello, this is my voice.", "ZH": "你好，这是我的声音。", "JP": "こんにちは。"}


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


def how_to_continue(cfg: Config) -> str:
    """Return the command that continues a run, whatever it was started by."""
    config = below(run_folder(cfg), CONFIG)
    return f"python -m job.train --config {shlex.quote(config)}"


def summary(cfg: Config, step: int) -> str:
    """Return a run's last page: where everything is, and what can be done next.

    Args:
        cfg: configuration of the run.
        step: global steps done.
    """
    folder = run_folder(cfg)
    metrics = METRICS if is_local(folder) else metrics_part("<first step>")
    places = {
        "shards": cfg.data.shards,
        "checkpoint": next(iter(checkpoints(folder)), "none"),
        "metrics": below(folder, metrics),
        "logs": below(folder, LOGS),
        "TensorBoard": f"{folder}/{TENSORBOARD}",
        "audio": f"{folder}/{TENSORBOARD_EVAL}",
    }
    lines = [f"  {what:12} {place}" for what, place in places.items()]
    nexts = [f"  {what}:\n    {command}" for what, command in what_next(cfg, step).items()]
    head = f"run {cfg.run.name}: step {step} of {cfg.train.max_steps}"
    return "\n".join([head, *lines, "what next:", *nexts])


def what_next(cfg: Config, step: int) -> dict[str, str]:
    """Return what can be done with a run -> the command, to be copied.

    Args:
        cfg: configuration of the run.
        step: global steps done.
    """
    folder = run_folder(cfg)
    quoted = shlex.quote(folder)
    saved = checkpoints(folder)
    if not saved:
        return {"continue": how_to_continue(cfg)}
    best = shlex.quote(below(folder, BEST)) if cfg.train.checkpoint.keep_best else quoted
    speaker, language = first_voice(cfg)
    voice = f"--speaker {shlex.quote(speaker)} --language {language}"
    text = shlex.quote(cfg.eval.sentences.get(language) or SAYS.get(language, SAYS["EN"]))
    checkpoint = f"--checkpoint {best}"
    return {
        "listen to the validations, and see the curves": f"tensorboard --logdir {quoted}",
        "have it speak": f"python -m job.synthesize {checkpoint} {voice} "
        f"--text {text} --out hello.wav",
        "compare it with the recordings": f"python -m job.evaluate {checkpoint}",
        "train it further": f"{how_to_continue(cfg)} --train.max_steps {2 * step}",
    }


def first_voice(cfg: Config) -> tuple[str, str]:
    """Return a speaker of a run's shards, and its language; placeholders if the shards are gone."""
    try:
        manifest = read_manifest(cfg.data.shards)
    except (ManifestError, OSError):
        return "NAME", "EN"
    return manifest.values("speaker", [0])[0], manifest.values("language", [0])[0]
