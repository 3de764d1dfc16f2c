"""What Ray Tune is told: where the trials' values come from, and which trials go on."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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

from tuning.space import Axis, Space

BRACKETS = 3  # of hyperband
# number of a trial's validation, from 1: the time by which trials are compared
VALIDATION = "validation"


@dataclass(frozen=True)
class SearchOptions:
    """How a space is searched.

    Attributes:
        search: where values come from: `random`, `grid` (every combination), or `optuna` (TPE).
        schedule: which trials go on: `none` lets all of them, `asha` stops the worse ones early,
            `hyperband` too, but some of them later than others, for those that begin badly and end
            well; `pbt` trains a population whose worse members take over the weights and values of
            the better ones.
        trials: how many; a grid has as many as combinations.
        grace: validations before a trial may be stopped (asha, hyperband).
        reduction: one in so many trials goes on at each decision (asha, hyperband).
        interval: validations between the population's decisions (pbt).
        seed: of the search.
    """

    search: Literal["random", "grid", "optuna"] = "random"
    schedule: Literal["none", "asha", "hyperband", "pbt"] = "asha"
    trials: int = 16
    grace: int = 1
    reduction: int = 2
    interval: int = 1
    seed: int = 42

    def __post_init__(self) -> None:
        for key, low in (("trials", 1), ("grace", 1), ("reduction", 2), ("interval", 1)):
            if getattr(self, key) < low:
                raise ValueError(f"--{key} is {getattr(self, key)}: give a number from {low}")
        if self.population and self.search == "optuna":
            raise ValueError(
                "--search optuna cannot be had with --schedule pbt, which changes the values itself"
            )
        if self.population and self.trials < 2:
            raise ValueError("--schedule pbt needs a population: give --trials 2 or more")

    @property
    def population(self) -> bool:
        """Whether values change while the trials train."""
        return self.schedule == "pbt"


def check_search(space: Space, options: SearchOptions) -> None:
    """Refuse a space that cannot be searched so.

    Raises:
        ValueError: names the key and the option.
    """
    for key, axis in space.items():
        if options.search == "grid" and axis.is_range:
            raise ValueError(
                f"{key} is a {axis.kind} range, of which --search grid cannot try all: give grid values"
            )
        if options.population and not key.startswith("train."):
            raise ValueError(
                f"{key} cannot change while a trial trains, as it would under --schedule pbt"
            )


def param_space(space: Space, options: SearchOptions) -> dict[str, Any]:
    """The space as Tune's own: dotted key -> domain."""
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
    """Searcher and scheduler.

    Args:
        space: what is searched.
        options: how.
        metric: what is minimised.
        validations: of a whole trial.
        start: values of the first trial, if it is not to be drawn; a grid has no use for them.
    """
    random.seed(options.seed)  # of which the population's decisions are drawn
    points = [dict(start)] if start else None
    searcher: Searcher | SearchAlgorithm
    if options.search == "optuna":
        searcher = OptunaSearch(seed=options.seed, points_to_evaluate=points)
    else:
        points = None if options.search == "grid" else points
        searcher = BasicVariantGenerator(random_state=options.seed, points_to_evaluate=points)
    return tune.TuneConfig(
        metric=metric,
        mode="min",
        search_alg=searcher,
        scheduler=_scheduler(space, options, validations),
        num_samples=1 if options.search == "grid" else options.trials,
        reuse_actors=False,  # what a stopped trial had started ends with its process
    )


def _scheduler(space: Space, options: SearchOptions, validations: int) -> TrialScheduler:
    if options.schedule in ("asha", "hyperband"):
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
    if options.schedule == "pbt":
        return PopulationBasedTraining(
            VALIDATION,
            perturbation_interval=options.interval,
            hyperparam_mutations={
                key: _domain(axis) if axis.is_range else list(axis.values)
                for key, axis in space.items()
            },
            custom_explore_fn=Clip(space),
            synch=True,  # members are compared after equal steps, however many can train at once
        )
    return FIFOScheduler()


class Remembers(Callback):
    """Has a scheduler go on where a driver died: Tune saves what callbacks know, and not what schedulers do."""

    def __init__(self, scheduler: AsyncHyperBandScheduler):
        self.scheduler = scheduler

    def get_state(self) -> dict[str, Any]:
        """What the scheduler knows: the scores that trials had when it decided."""
        return dict(vars(self.scheduler))

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` gave."""
        vars(self.scheduler).update(state)


@dataclass(frozen=True)
class Clip:
    """Keeps what PBT makes of a value, 0.8 or 1.2 times of it, in its range."""

    space: Space

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values within their ranges."""
        ranges = {key: axis.values for key, axis in self.space.items() if axis.is_range}
        return values | {
            key: min(max(values[key], low), high) for key, (low, high) in ranges.items()
        }


def _domain(axis: Axis) -> Any:
    if axis.kind == "uniform":
        return tune.uniform(*axis.values)
    if axis.kind == "loguniform":
        return tune.loguniform(*axis.values)
    return tune.choice(list(axis.values))
