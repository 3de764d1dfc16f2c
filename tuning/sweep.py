"""Search over the configuration: `python -m tuning.sweep --config C --space loss_weights`."""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("tuning.sweep")

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import yaml
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from data.files import below, keep_trying, put_file, read_file
from data.settings.dotted_keys import attribute
from job.on_ray.cluster import ray_session, what_starts
from job.on_ray.storage import ray_storage
from job.on_ray.training import prepared_manifest
from job.reports.console import columns, starting
from job.settings.checks import check
from job.settings.cli import overridden, parse, run, to_yaml
from job.settings.config import Config
from job.settings.paths import named_path, run_folder, with_absolute_paths
from trainable.evaluation.evaluate import is_known, validation_tags
from tuning.capacity import driver_resources, shared_out
from tuning.options import SearchOptions, command_line
from tuning.page import save_page
from tuning.results import Results, best_config, collect, save
from tuning.search import (
    VALIDATION,
    Remembers,
    check_search,
    param_space,
    tune_config,
)
from tuning.space import Space, names, read_space
from tuning.trial import TrialConfig, run_trial
from tuning.watch import Watch, fitting_table

SWEEP, BEST_RUN = "-sweep", "-best"  # behind run.name
EXPERIMENT = "tune"  # Tune's own folder in the sweep's


@dataclass(frozen=True)
class Sweep:
    """A sweep that can start.

    Attributes:
        cfg: the configuration that the trials start from.
        space: what is searched.
        options: how it is searched.
        metric: score that is minimised.
    """

    cfg: Config
    space: Space
    options: SearchOptions
    metric: str

    @property
    def folder(self) -> str:
        """Folder or URI of the sweep."""
        return f"{run_folder(self.cfg)}{SWEEP}"

    @property
    def trial(self) -> TrialConfig:
        """What its trials have in common."""
        cfg = replace(self.cfg, run=replace(self.cfg.run, storage=below(self.folder, "runs")))
        interval = self.options.interval if self.options.population else None
        return TrialConfig(cfg, self.metric, interval)

    def described(self) -> str:
        """Return the sweep as YAML: what must be the same where it is continued."""
        space = {key: {axis.kind: list(axis.values)} for key, axis in self.space.items()}
        content = {
            "metric": self.metric,
            "options": asdict(self.options),
            "space": space,
            "config": yaml.safe_load(to_yaml(self.cfg)),
        }
        return yaml.safe_dump(content, sort_keys=False)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    cfg, args = parse(command_line(), argv)
    options = SearchOptions(**{field.name: args[field.name] for field in fields(SearchOptions)})
    sweep = prepared(cfg, args.space, options, args.metric)
    run_sweep(sweep, args.at_once)
    return 0


def prepared(cfg: Config, space: str, options: SearchOptions, metric: str) -> Sweep:
    """Check all that can be checked before anything starts.

    Args:
        cfg: the configuration that the trials start from.
        space: name of a space, or path of a YAML file.
        options: how it is searched.
        metric: score that is minimised.

    Raises:
        ValueError: something does not fit; names the key or option.
    """
    check_comparable(cfg, metric)
    # checkpoints are ranked by the metric of the sweep, so that the best ones are kept
    cfg = with_absolute_paths(overridden(cfg, {"train.checkpoint.metric": metric}))
    check(cfg)
    # the names of its folder, and of the run that best.yaml describes
    for suffix in (SWEEP, BEST_RUN):
        run_folder(replace(cfg, run=replace(cfg.run, name=cfg.run.name + suffix)))
    found = read_space(space if space in names() else named_path("--space", space), cfg)
    check_search(found, options)
    return Sweep(cfg, found, options, metric)


def check_comparable(cfg: Config, metric: str) -> None:
    """Refuse settings under which trials cannot be compared by a metric.

    Raises:
        ValueError: names the key or option.
    """
    for key in ("eval.max_utterances", "train.checkpoint.keep_best"):
        if attribute(cfg, key) < 1:
            raise ValueError(
                f"{key} is 0, but trials are compared by their validations: give 1 or more"
            )
    if not is_known(metric, cfg.train, cfg.eval):
        why = "unknown"
        if "loss" in metric:
            why = "it holds the weights that are searched over: the smallest would win"
        known = ", ".join(validation_tags(cfg.train, cfg.eval))
        raise ValueError(f"--metric {metric}: {why}; give a score of the validation: {known}")


def run_sweep(sweep: Sweep, at_once: int | None = None) -> None:
    """Run the trials that are not done yet, and write the results.

    Args:
        sweep: what to run; one of the same name continues.
        at_once: trials at once; None: as many as the cluster has room for.

    Raises:
        ValueError: another sweep has this name, the cluster has no room for a trial, or no trial
            has a score.
    """
    # a name is one sweep's: another space or seed would mix their trials
    keep_trying(lambda: _claim(sweep))
    with starting(what_starts(), ray_session(sweep.cfg)):
        prepared_manifest(sweep.cfg)  # once, for all trials
        cfg, at_once = shared_out(sweep.cfg, at_once)
        trial = replace(sweep, cfg=cfg).trial
        print(
            f"sweep {sweep.folder}: {len(sweep.space)} keys, {at_once} at once, "
            f"{cfg.data.loaders} data.loaders each, by {sweep.metric}"
        )
        grid = tuner_of(sweep, trial, at_once).fit()
        results = collect(grid, sweep.space, sweep.metric, trial.validations)

    best = best_config(results, sweep.cfg, f"{sweep.cfg.run.name}{BEST_RUN}")
    save(results, sweep.folder, best, sweep.options.population)
    save_page(results, sweep.folder, sweep.options.population, _first_values(sweep))
    print(summary(sweep, results))


def summary(sweep: Sweep, results: Results) -> str:
    """Return a table of the trials, where everything is, and what can be done next."""
    shown = ["trial", "status", "step", sweep.metric, *sweep.space]
    rows = results.trials[shown].to_dict("records")
    best = below(sweep.folder, "best.yaml")
    logs = below(sweep.folder, EXPERIMENT)
    places = {
        "trials.csv": "the trials, best first (history.csv: every validation)",
        "sweep.html": "the same with curves, and the sounds of the best trials",
        f"runs/{results.best['run']}": "the best trial's run",
        "best.yaml": "its configuration",
        EXPERIMENT: "Ray Tune's files, for TensorBoard's HParams",
    }
    lines = [f"{sweep.folder} has"]
    lines += [f"  {name}  {meaning}" for name, meaning in places.items()]
    nexts = {
        "train with the best trial's values": f"python -m job.train --config {shlex.quote(best)}",
        "compare the trials": f"tensorboard --logdir {shlex.quote(logs)}",
        "list their runs, each of which can speak": "python -m job.runs "
        + shlex.quote(below(sweep.folder, "runs")),
    }
    told = [f"  {what}:\n    {command}" for what, command in nexts.items()]
    trials = fitting_table(rows, sweep.space, columns())
    return "\n".join([trials, *lines, "what next:", *told])


def _claim(sweep: Sweep) -> None:
    """Take the sweep's folder, unless it is this sweep's already.

    Raises:
        ValueError: it belongs to a sweep with other settings.
    """
    uri = below(sweep.folder, "sweep.yaml")
    described = sweep.described().encode()
    try:
        before = read_file(uri)
    except FileNotFoundError:
        put_file(uri, described)
        return
    if before != described:
        raise ValueError(
            f"{uri} was written by a sweep with other settings: continue it with those, or choose "
            "another run.name"
        )


def tuner_of(sweep: Sweep, trial: TrialConfig, at_once: int) -> tune.Tuner:
    """Return Tune's tuner: a new one, or one that continues where the driver of this sweep died.

    Args:
        sweep: what to run.
        trial: what its trials have in common.
        at_once: trials at once.
    """
    # Tune's own table of settings, which it prints however quiet it is to be
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    filesystem, path = ray_storage(sweep.folder)

    def sweep_trial(values: dict[str, Any]) -> None:
        run_trial(values, trial)

    trainable = tune.with_resources(sweep_trial, driver_resources(at_once))
    experiment = f"{path}/{EXPERIMENT}"
    # Tune knows which trials have finished, and restores the searcher
    if tune.Tuner.can_restore(experiment, storage_filesystem=filesystem):
        print("continues the sweep: finished trials are not run again")
        return tune.Tuner.restore(experiment, trainable, storage_filesystem=filesystem)

    config = tune_config(
        sweep.space, sweep.options, sweep.metric, trial.validations, _first_values(sweep)
    )
    # Tune saves callbacks, but not schedulers: ASHA's scores go with one
    runs = ray_storage(trial.cfg.run.storage)[1]
    watch = Watch(sweep.space, sweep.metric, runs, trial.validations)
    callbacks: list[Callback] = [watch]
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
            # Nothing is decided about a population at its end. Other trials end by themselves, and
            # write their logs.
            stop={VALIDATION: trial.validations} if sweep.options.population else None,
        ),
    )


def _first_values(sweep: Sweep) -> dict[str, Any] | None:
    """Return the configuration's own values for the first trial; None if the space lacks them."""
    values = {key: attribute(sweep.cfg, key) for key in sweep.space}
    return values if all(axis.holds(values[key]) for key, axis in sweep.space.items()) else None


def _trial_id(trial: Trial) -> str:
    return trial.trial_id


if __name__ == "__main__":
    run(main)
