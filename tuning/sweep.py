"""Search over the configuration: `python -m tuning.sweep --config job/presets/demo.yaml --space loss_weights`."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from data.files import below, keep_trying, put_file, read_file
from job.on_ray.cluster import ray_session
from job.on_ray.scaling import give_back
from job.on_ray.storage import ray_storage
from job.settings.cli import overridden, parse, parser, run, to_yaml
from job.settings.config import Config
from job.settings.paths import absolute, run_folder, with_absolute_paths
from job.train import check, manifest_of
from trainable.evaluation.evaluate import is_known, validation_tags
from trainable.settings import check_fits
from tuning.capacity import MOST, driver_resources, trials_at_once
from tuning.results import best_config, collect, console_table, save
from tuning.search import (
    VALIDATION,
    Remembers,
    SearchOptions,
    check_search,
    param_space,
    tune_config,
)
from tuning.space import Space, configured, names, read_space
from tuning.trial import TrialConfig, run_trial

TABLE_S = 10.0  # between two tables on the console
EXPERIMENT = "tune"  # Tune's own folder in the sweep's


@dataclass(frozen=True)
class Sweep:
    """A sweep that can start.

    Attributes:
        cfg: the configuration that the trials start from.
        space: what is searched.
        options: how.
        metric: that is minimised.
    """

    cfg: Config
    space: Space
    options: SearchOptions
    metric: str

    @property
    def folder(self) -> str:
        """Folder or URI of the sweep."""
        return f"{run_folder(self.cfg)}-sweep"

    @property
    def trial(self) -> TrialConfig:
        """What its trials have in common."""
        cfg = replace(self.cfg, run=replace(self.cfg.run, storage=below(self.folder, "runs")))
        return TrialConfig(
            cfg, self.metric, self.options.interval if self.options.population else None
        )

    def described(self) -> str:
        """The sweep as YAML: what must be the same where it is continued."""
        space = {key: {axis.kind: list(axis.values)} for key, axis in self.space.items()}
        content = {"metric": self.metric, "options": asdict(self.options), "space": space}
        return yaml.safe_dump(
            content | {"config": yaml.safe_load(to_yaml(self.cfg))}, sort_keys=False
        )


def main(argv: Sequence[str]) -> int:
    """The command."""
    cfg, args = parse(command_line(), argv)
    options = SearchOptions(**{f.name: args[f.name] for f in fields(SearchOptions)})
    sweep = prepared(cfg, args.space, options, args.metric)
    run_sweep(sweep, args.at_once)
    return 0


def command_line() -> ArgumentParser:
    """The command's options."""
    made = parser(
        "python -m tuning.sweep",
        "Search over the configuration: trains many trials and compares them.",
    )
    made.add_class_arguments(SearchOptions)
    made.add_argument(
        "--space", required=True, help=f"what is searched: {', '.join(names())}, or a YAML file"
    )
    made.add_argument(
        "--metric", default="eval/mcd", help="of a validation, minimised: eval/mel, eval/mcd, ..."
    )
    made.add_argument(
        "--at_once", type=int, help="trials at once; by default as many as the cluster has room for"
    )
    return made


def prepared(cfg: Config, space: str, options: SearchOptions, metric: str) -> Sweep:
    """Check all that can be checked before anything starts.

    Raises:
        ValueError: what does not fit; names the key or option.
    """
    for key in ("eval.max_utterances", "train.checkpoint.keep_best"):
        if configured(cfg, key) < 1:
            raise ValueError(
                f"{key} is 0, but trials are compared by their validations: give 1 or more"
            )
    if not is_known(metric, cfg.train, cfg.eval):
        why = (
            "it holds the weights that are searched over: the smallest would win"
            if "loss" in metric
            else "unknown"
        )
        known = ", ".join(validation_tags(cfg.train, cfg.eval))
        raise ValueError(f"--metric {metric}: {why}; give a score of the validation: {known}")
    cfg = with_absolute_paths(overridden(cfg, {"train.checkpoint.metric": metric}))
    check(cfg)
    found = read_space(space if space in names() else absolute(space), cfg)
    check_search(found, options)
    return Sweep(cfg, found, options, metric)


def run_sweep(sweep: Sweep, at_once: int | None = None) -> None:
    """Run the trials that are not done yet, and write the results.

    Args:
        sweep: what to run; one of the same name continues.
        at_once: trials at once; None: as many as the cluster has room for.

    Raises:
        ValueError: another sweep has this name, the cluster has no room for a trial, or no trial
            has a score.
    """
    trial = sweep.trial
    keep_trying(lambda: _claim(sweep))
    with ray_session(sweep.cfg):
        # prepared once, for all trials
        check_fits(sweep.cfg.data, sweep.cfg.model, manifest_of(sweep.cfg))
        at_once = min(at_once, MOST) if at_once else trials_at_once(sweep.cfg)
        print(
            f"sweep {sweep.folder}: {len(sweep.space)} keys, {at_once} trials at once, by {sweep.metric}"
        )
        grid = tuner_of(sweep, trial, at_once).fit()
        results = collect(grid, sweep.space, sweep.metric, trial.validations)
    best = best_config(results, sweep.cfg, f"{sweep.cfg.run.name}-best")
    save(results, sweep.folder, best, sweep.options.population)
    columns = ["trial", "status", "step", sweep.metric, *sweep.space]
    print(console_table(results.trials[columns].to_dict("records"), sweep.space))
    for name, what in (
        ("trials.csv", "the trials, best first (and as Parquet; history.csv has every validation)"),
        ("sweep.html", "the same with plots"),
        (f"runs/{results.best['run']}", "the best trial's run"),
        (
            "best.yaml",
            f"its configuration: python -m job.train --config {below(sweep.folder, 'best.yaml')}",
        ),
        (
            EXPERIMENT,
            f"TensorBoard HParams (tensorboard --logdir {below(sweep.folder, EXPERIMENT)})",
        ),
    ):
        print(f"  {below(sweep.folder, name)}  {what}")


def _claim(sweep: Sweep) -> None:
    """Take the sweep's folder, or find it to be this sweep's.

    Raises:
        ValueError: it is of a sweep that was started otherwise.
    """
    uri, described = below(sweep.folder, "sweep.yaml"), sweep.described().encode()
    try:
        before = read_file(uri)
    except FileNotFoundError:
        put_file(uri, described)
        return
    if before != described:
        raise ValueError(
            f"{uri} was written by a sweep with other settings: continue it with those, or choose another run.name"
        )


def tuner_of(sweep: Sweep, trial: TrialConfig, at_once: int) -> tune.Tuner:
    """Tune's tuner: a new one, or one that continues where the driver of this sweep died."""
    filesystem, path = ray_storage(sweep.folder)

    def sweep_trial(values: dict[str, Any]) -> None:
        run_trial(values, trial)

    trainable = tune.with_resources(sweep_trial, driver_resources(at_once))
    experiment = f"{path}/{EXPERIMENT}"
    if tune.Tuner.can_restore(experiment, storage_filesystem=filesystem):
        print("continues the sweep: finished trials are not run again")
        return tune.Tuner.restore(experiment, trainable, storage_filesystem=filesystem)
    first = {key: configured(sweep.cfg, key) for key in sweep.space}
    start = first if all(axis.holds(first[key]) for key, axis in sweep.space.items()) else None
    config = tune_config(sweep.space, sweep.options, sweep.metric, trial.validations, start)
    callbacks: list[Callback] = [
        Watch(sweep.space, sweep.metric, ray_storage(trial.cfg.run.storage)[1])
    ]
    if isinstance(config.scheduler, AsyncHyperBandScheduler):
        callbacks.append(Remembers(config.scheduler))
    return tune.Tuner(
        trainable,
        param_space=param_space(sweep.space, sweep.options),
        tune_config=replace(config, trial_dirname_creator=_trial_id, trial_name_creator=_trial_id),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=path,
            storage_filesystem=filesystem,
            verbose=0,
            callbacks=callbacks,
            # nothing is to be decided of a population at its end; other trials end by themselves,
            # and write their logs
            stop={VALIDATION: trial.validations} if sweep.options.population else None,
        ),
    )


def _trial_id(trial: Trial) -> str:
    return trial.trial_id


class Watch(Callback):
    """Shows the trials on the console as they go, and frees what the ended ones had reserved."""

    def __init__(self, space: Space, metric: str, runs: str):
        """Watch a sweep.

        Args:
            space: what is searched.
            metric: that is minimised.
            runs: path of the folder of the trials' runs, in its storage.
        """
        self.space, self.metric, self.runs, self.shown_at = space, metric, runs, 0.0

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial was validated."""
        if time.monotonic() > self.shown_at + TABLE_S:
            self.shown_at = time.monotonic()
            self.show(trials)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has finished, or was stopped in mid-training: its process ends, and all that it had started."""
        give_back(f"{self.runs}/{trial.trial_id}")
        self.show(trials)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has failed; the others go on."""
        give_back(f"{self.runs}/{trial.trial_id}")
        print(f"trial {trial.trial_id} failed: {trial.get_error()}")

    def show(self, trials: list[Trial]) -> None:
        """Print a table of the trials."""
        rows = []
        for trial in trials:
            told, scores = trial.last_result or {}, trial.metric_analysis.get(self.metric, {})
            row = {
                "trial": trial.trial_id,
                "status": trial.status.lower(),
                "step": told.get("step"),
            }
            row |= {self.metric: told.get(self.metric), "lowest": scores.get("min")}
            rows.append(row | {key: trial.config.get(key) for key in self.space})
        print(console_table(rows, self.space), flush=True)


if __name__ == "__main__":
    run(main)
