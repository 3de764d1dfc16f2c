"""What Ray Tune is given: where the trials' values come from, and which trials continue."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from tuning.options import SearchOptions
from tuning.space import Axis, Space

BRACKETS = 3  # of hyperband
# number of a trial's validation, from 1: the time by which trials are compared
VALIDATION = "validation"


def check_search(space: Space, options: SearchOptions) -> None:
    """Refuse a space that cannot be searched in this way.

    Raises:
        ValueError: names the key and the option.
    """
    for key, axis in space.items():
        if options.search == "grid" and axis.is_range:
            raise ValueError(
                f"{key} is a {axis.kind} range, of which --search grid cannot try all: give grid "
                "values"
            )
        if options.population and not key.startswith("train."):
            raise ValueError(
                f"{key} cannot change while a trial trains, as it would under --schedule pbt"
            )


def param_space(space: Space, options: SearchOptions) -> dict[str, Any]:
    """Return the space as Tune's own: dotted key -> domain."""
    if options.search == "grid":
        return {key: tune.grid_search(list(axis.values)) for key, axis in space.items()}
    return {key: _domain(axis) for key, axis in space.items()}


def tune_config(
    space: Space,
    options: SearchOptions,
    metric: str,
    validations: int,
    start: Mapping[str, Any] | None = None,
) -> tune.TuneConfig:
    """Return Tune's configuration: searcher and scheduler.

    Args:
        space: what is searched.
        options: how it is searched.
        metric: score that is minimised.
        validations: how many a whole trial has.
        start: values of the first trial, if it is not to be drawn; a grid has no use for them.
    """
    random.seed(options.seed)  # the population's decisions are drawn from it
    return tune.TuneConfig(
        metric=metric,
        mode="min",
        search_alg=_searcher(options, start),
        scheduler=_scheduler(space, options, validations),
        num_samples=1 if options.search == "grid" else options.trials,
        reuse_actors=False,  # all that a stopped trial had started ends with its process
    )


def _searcher(
    options: SearchOptions, start: Mapping[str, Any] | None
) -> Searcher | SearchAlgorithm:
    points = [dict(start)] if start else None
    if options.search == "optuna":
        return OptunaSearch(seed=options.seed, points_to_evaluate=points)
    if options.search == "grid":
        points = None
    return BasicVariantGenerator(random_state=options.seed, points_to_evaluate=points)


def _scheduler(space: Space, options: SearchOptions, validations: int) -> TrialScheduler:
    if options.schedule in ("asha", "hyperband"):
        return _halving(options, validations)
    if options.schedule == "pbt":
        mutations = {
            key: _domain(axis) if axis.is_range else list(axis.values)
            for key, axis in space.items()
        }
        return PopulationBasedTraining(
            VALIDATION,
            perturbation_interval=options.interval,
            hyperparam_mutations=mutations,
            custom_explore_fn=Clip(space),
            synch=True,  # members are compared after equal steps, however many can train at once
        )
    return FIFOScheduler()


def _halving(options: SearchOptions, validations: int) -> AsyncHyperBandScheduler:
    """Return the scheduler that lets one trial in `reduction` continue at each rung."""
    # a trial cannot be stopped after its end
    grace = min(options.grace, validations)
    rungs = int(math.log(validations / grace, options.reduction)) + 1
    return AsyncHyperBandScheduler(
        VALIDATION,
        max_t=validations,
        grace_period=grace,
        reduction_factor=options.reduction,
        brackets=1 if options.schedule == "asha" else min(BRACKETS, rungs),
        stop_last_trials=False,  # they end by themselves, and write their logs
    )


class Remembers(Callback):
    """Lets a scheduler resume where a driver died: Tune saves callbacks, but not schedulers."""

    def __init__(self, scheduler: AsyncHyperBandScheduler):
        self.scheduler = scheduler

    def get_state(self) -> dict[str, Any]:
        """Return what the scheduler knows: the scores that trials had when it decided."""
        return dict(vars(self.scheduler))

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        vars(self.scheduler).update(state)


@dataclass(frozen=True)
class Clip:
    """Keeps what PBT makes of a value, 0.8 or 1.2 times it, in its range."""

    space: Space

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values within their ranges."""
        ranges = {key: axis.values for key, axis in self.space.items() if axis.is_range}
        clipped = {key: min(max(values[key], low), high) for key, (low, high) in ranges.items()}
        return values | clipped


def _domain(axis: Axis) -> Any:
    if axis.kind == "uniform":
        return tune.uniform(*axis.values)
    if axis.kind == "loguniform":
        return tune.loguniform(*axis.values)
    return tune.choice(list(axis.values))
