"""Train a voice, or continue: `python -m job.train --config C [--section.key VALUE ...]`."""

import contextlib
from collections.abc import Sequence

from ray.train import Result

from data.files import keep_trying
from job.on_ray.cluster import on_cluster, ray_session
from job.on_ray.private import UserCallback
from job.on_ray.storage import forget_checkpoint_list
from job.on_ray.training import prepared_manifest, trainer_of
from job.reports.console import follow
from job.reports.outcome import is_finished, summary
from job.settings.checks import check
from job.settings.cli import parse, parser, run
from job.settings.config import Config
from job.settings.description import save_description
from job.settings.models import check_models, check_start_weights, of_training
from job.settings.paths import run_folder, with_absolute_paths
from trainable.run.logs import earlier_log
from trainable.run.storage import checkpoints, claim


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
    """
    cfg = with_absolute_paths(cfg)
    check(cfg)

    folder = run_folder(cfg)
    retry_s = cfg.train.checkpoint.retry_s
    # before Ray starts, as a finished run needs no cluster
    if keep_trying(lambda: is_finished(cfg), retry_s):
        print(summary(cfg, cfg.train.max_steps))
        return None
    look_for_models(cfg)

    with ray_session(cfg):
        prepared_manifest(cfg)
        keep_trying(lambda: save_description(cfg), retry_s)
        # Ray Train would not start with a list that names a checkpoint which is gone
        keep_trying(lambda: forget_checkpoint_list(folder), retry_s)
        # from here on, a driver of this run that was started earlier saves nothing more
        owner = keep_trying(lambda: claim(folder), retry_s)
        trainer = trainer_of(cfg, owner, callbacks)
        with show_progress(folder, retry_s):
            result = trainer.fit()

    outcome = result.return_value  # type: ignore[attr-defined]
    # the workers stopped together for a reason that no restart would cure
    if "error" in outcome:
        raise ValueError(outcome["error"])
    print(summary(cfg, outcome["step"]))
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


def show_progress(folder: str, retry_s: float) -> contextlib.AbstractContextManager[None]:
    """Follow rank 0's log while a local Ray trains; from a cluster, Ray forwards the output.

    Args:
        folder: folder or URI of the run.
        retry_s: seconds for which a store that does not answer is asked again.
    """
    if on_cluster():
        return contextlib.nullcontext()
    return follow(keep_trying(lambda: earlier_log(folder, 0), retry_s))


if __name__ == "__main__":
    run(main)
