"""Train a voice, or continue: `python -m job.train --config C [--section.key VALUE ...]`."""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.train")

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from ray.train import Result

from data.corpus.prepared import as_prepared
from data.files import keep_trying
from data.shards.manifest import Manifest
from job.on_ray.cluster import check_device, on_cluster, ray_session, what_starts
from job.on_ray.failures import FAILURES, newest_step, told_in_a_line
from job.on_ray.private import UserCallback, taking
from job.on_ray.scaling import ElasticTrainer
from job.on_ray.stopping import Signals
from job.on_ray.storage import write_checkpoint_list
from job.on_ray.training import (
    prepared_manifest,
    ready_manifest,
    settled,
    trainer_of,
    worker_config,
)
from job.reports.console import stage, starting
from job.reports.forwarded import listen
from job.reports.outcome import how_to_continue, is_finished, summary
from job.reports.progress import follow
from job.settings.checks import check, warn_of_uneven_shares
from job.settings.cli import parse, parser, run
from job.settings.config import Config
from job.settings.description import save_description
from job.settings.models import check_models, check_start_weights, of_training
from job.settings.paths import run_folder, with_absolute_paths
from trainable.run.heartbeat import FAILED, FINISHED, STOPPED, Heartbeat, beating
from trainable.run.logs import earlier_log
from trainable.run.storage import checkpoints, claim, list_checkpoints
from trainable.worker.start_check import check_start, plan_of_run


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = parser("python -m job.train", "Train a voice, or continue the run of this name.")
    cfg, _ = parse(made, argv)
    train(cfg)
    return 0


def train(cfg: Config, callbacks: Sequence[UserCallback] = ()) -> Result | None:
    """Prepare missing shards, then train until train.max_steps; continue a run of the same name.

    Args:
        cfg: the configuration.
        callbacks: called by Ray Train's controller.

    Returns:
        Ray Train's result; None if the run was finished before, so that a job may be submitted
        again.

    Raises:
        ValueError: settings that do not fit; names the keys.
        OSError: the run's folder cannot be read or written.
        CommandFailedError: it was given up.
        SystemExit: a signal has stopped it, in the main thread.
    """
    cfg = with_absolute_paths(cfg)
    check(cfg)
    warn_of_uneven_shares(cfg)

    # before Ray starts, as a finished run needs no cluster
    if keep_trying(lambda: is_finished(cfg), cfg.train.checkpoint.retry_s):
        print(summary(cfg, cfg.train.max_steps))
        return None
    with stage("looking for models and shards"):
        look_for_models(cfg)
        cfg = with_plan_of_run(cfg)
        manifest = ready_manifest(cfg)
    if manifest is not None:
        cfg = replace(cfg, data=as_prepared(cfg.data, manifest.header))
        look(cfg, manifest)
    with Signals() as signals, starting(what_starts(), ray_session(cfg)):
        signals.catch()
        check_device(cfg)
        if manifest is None:
            look(cfg, prepared_manifest(cfg))
        cfg = settled(cfg)
        owner = take_over(cfg)
        trainer = trainer_of(cfg, owner, callbacks)
        with beating(run_folder(cfg), owner) as heart:
            return train_to_end(cfg, trainer, signals, heart)


def with_plan_of_run(cfg: Config) -> Config:
    """Return the configuration with its plan settled, as the run's config.yaml is to say.

    Raises:
        OSError: the run's folder cannot be read.
    """
    plan = keep_trying(
        lambda: plan_of_run(cfg.data.plan, run_folder(cfg)), cfg.train.checkpoint.retry_s
    )
    return replace(cfg, data=replace(cfg.data, plan=plan))


def look(cfg: Config, manifest: Manifest) -> None:
    """Refuse a start that the workers would refuse, before anything is written.

    A run of this name may be training, and is to go on if this start is a mistake.

    Raises:
        ValueError: settings do not fit the shards or the run's checkpoints.
        OSError: the run's folder cannot be read.
    """
    told = worker_config(cfg, owner="")
    keep_trying(lambda: check_start(told, manifest), cfg.train.checkpoint.retry_s)


def take_over(cfg: Config) -> str:
    """Describe this start in the run's folder and claim it; return the claim.

    Raises:
        OSError: the run's folder cannot be written.
    """
    folder = run_folder(cfg)
    retry_s = cfg.train.checkpoint.retry_s
    keep_trying(lambda: save_description(cfg), retry_s)
    # of a run of older code, or one whose folder was tidied up by hand
    keep_trying(lambda: list_checkpoints(folder, write_checkpoint_list), retry_s)
    # from here on, a driver of this run that was started earlier saves nothing more
    return keep_trying(lambda: claim(folder), retry_s)


def train_to_end(
    cfg: Config, trainer: ElasticTrainer, signals: Signals, heart: Heartbeat
) -> Result:
    """Train until the end, a failure or a signal; tell in the run's folder which it was.

    Raises:
        ValueError: the workers have stopped for a reason that no restart would cure.
        CommandFailedError: it was given up.
        SystemExit: a signal has stopped it.
    """
    folder = run_folder(cfg)
    try:
        with show_progress(cfg), signals.asking(trainer.stop):
            result = trainer.fit()
        outcome = result.return_value  # type: ignore[attr-defined]
        if "error" in outcome:
            raise ValueError(outcome["error"])
    except FAILURES as error:
        if signals.caught is not None:
            say_where_it_stopped(cfg, signals, heart, max(newest_step(folder), 0))
        failure = told_in_a_line(error, folder)
        heart.ended(FAILED, error=str(failure))
        raise failure from None
    except Exception as error:
        heart.ended(FAILED, error=str(error))
        raise
    except SystemExit:  # a second signal
        heart.ended(STOPPED, step=max(newest_step(folder), 0))
        raise

    step = outcome["step"]
    if "stopped" in outcome:
        say_where_it_stopped(cfg, signals, heart, step)
    heart.ended(FINISHED, step)
    print(summary(cfg, step))
    return result


def look_for_models(cfg: Config) -> None:
    """Refuse models that are nowhere, before Ray starts.

    Raises:
        ValueError: names the key.
        OSError: a store or the hub does not answer.
    """
    hub_is_needed = not on_cluster()
    check_models(of_training(cfg), hub_is_needed)
    # a run that has a checkpoint goes on from there
    if not checkpoints(run_folder(cfg)):
        check_start_weights(cfg, hub_is_needed)


def say_where_it_stopped(cfg: Config, signals: Signals, heart: Heartbeat, step: int) -> NoReturn:
    """End a command whose run a signal has stopped.

    Args:
        cfg: configuration of the run.
        signals: those of this process.
        heart: what the run's folder says of it.
        step: where the run stands, and is saved.
    """
    heart.ended(STOPPED, step)
    stands = f"stopped at step {step}, saved" if step else "stopped before its first step"
    print(f"{stands}: the same command continues, or\n  {how_to_continue(cfg)}", flush=True)
    sys.exit(signals.status)


def show_progress(cfg: Config) -> contextlib.AbstractContextManager[None]:
    """Show what rank 0 says: a local Ray's in its log, a cluster's as Ray forwards it."""
    low, high = cfg.scaling.bounds
    what = f"placing {low} to {high} workers" if low < high else f"placing {high} workers"
    what = what.removesuffix("s") if high == 1 else what
    checkpoint = cfg.train.checkpoint
    log = keep_trying(lambda: earlier_log(run_folder(cfg), 0), checkpoint.retry_s)
    return listen(log, checkpoint, what, taking) if on_cluster() else follow(log, checkpoint, what)


if __name__ == "__main__":
    run(main)
