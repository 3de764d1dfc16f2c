"""What a micro-batch costs, in milliseconds, fitted to the steps that a run has taken."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from data.files import below
from data.plan.epoch_plan import EpochPlan, Position, rounded_up
from data.plan.schedule import Schedule
from data.settings.plan import CostConfig
from data.shards.manifest import read_manifest
from data.stream.spec import StreamSpec, schedule_of
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.run.format import CONFIG
from trainable.run.metrics_file import read_metrics
from trainable.worker.start_check import newest_readable

FEWEST = 20  # steps
ROUNDS = 20  # of the fit
MOST = 5_000  # the last ones
PRECISION = 0.002  # of the budget
NOISE = 0.1  # share of a step's time; what is further off counts as an outlier
TERMS = ("micro_batch", "utterance", "frame", "cell")


def fit(run: str) -> dict[str, Any]:
    """Return the costs that a run's own steps tell, and how well they do.

    Args:
        run: folder or URI of the run.

    Returns:
        `data` (the keys to set), `steps`, and the median error of a step's predicted time, as a
        share of it: `error`, and `error_before` by the costs that the run has.

    Raises:
        ValueError: there are too few steps, or the shards are other ones.
        OSError: the run or its shards cannot be read.
    """
    lines = read_metrics(run)[-MOST:]
    if len(lines) < FEWEST:
        raise ValueError(f"{run} has metrics of {len(lines)} steps: give a run of {FEWEST} or more")
    cfg = read_config(below(run, CONFIG))
    schedule = schedule_of_run(run, cfg)
    frames = padded_frames(schedule)
    held = terms_of_steps(lines, schedule, frames)
    seconds = np.array([line["seconds"] - line["seconds_waiting"] for line in lines])

    present = coefficients(schedule.cut.plan.cost)
    found = fitted(held, seconds, present)
    milliseconds = 1000 * found
    budget = like_budget(milliseconds, schedule, lines[-1]["epoch"], frames)
    cost = rounded(CostConfig(budget, *milliseconds.tolist()))
    return {
        "data": {"plan": {"mode": "cost", "cost": asdict(cost)}},
        "steps": len(held),
        "error": median_error(held, seconds, found),
        "error_before": median_error(held, seconds, present),
    }


def rounded(cost: CostConfig) -> CostConfig:
    """Return the same to four digits."""
    return CostConfig(**{key: float(f"{value:.4g}") for key, value in asdict(cost).items()})


def schedule_of_run(run: str, cfg: Config) -> Schedule:
    """Return the order of a run, through all changes of its plan.

    Raises:
        ValueError: the shards were prepared again since.
    """
    newest = newest_readable(run)
    manifest = newest[1].manifest if newest else read_manifest(cfg.data.shards).digest
    spec = StreamSpec.of_new_run(
        cfg.data,
        manifest,
        cfg.train.seed,
        cfg.train.micro_batches_per_step,
        cfg.train.segment_size // cfg.data.hop_length,
    )
    if newest is not None and newest[1].history:
        spec = replace(spec, history=newest[1].history)
    return schedule_of(spec)


def padded_frames(schedule: Schedule) -> np.ndarray:
    """Return the padded frames of the utterances by row of the manifest, int64."""
    frames = np.zeros(schedule.rows.max() + 1, np.int64)
    frames[schedule.rows] = rounded_up(schedule.frames, schedule.cut.plan.pad_to.frames)
    return frames


def terms(plan: EpochPlan, frames: np.ndarray) -> np.ndarray:
    """Return what multiplies TERMS in the cost of each micro-batch of an epoch: float64 [M, 4].

    Args:
        plan: plan of the epoch.
        frames: padded frames by row of the manifest, int64.
    """
    B = np.diff(plan.offsets)
    F = np.maximum.reduceat(frames[plan.order], plan.offsets[:-1])
    return np.stack([np.ones(len(B)), B, B * F, B * F * F], axis=1)


def terms_of_steps(
    lines: Sequence[Mapping[str, Any]], schedule: Schedule, frames: np.ndarray
) -> np.ndarray:
    """Return what multiplies TERMS in the time of each worker in each step.

    Args:
        lines: lines of the metrics, in order.
        schedule: order of the run.
        frames: padded frames by row of the manifest, int64.

    Returns:
        float64 [steps, most workers, 4]; 0 where a step had fewer workers.
    """
    found = np.zeros((len(lines), max(line["world_size"] for line in lines), len(TERMS)))
    here = Position()
    epoch = -1
    for line, workers in zip(lines, found, strict=True):
        while here.step < line["step"] - 1:
            here = schedule.after(here)
        plan = schedule.plan(here.epoch)
        if here.epoch != epoch:
            of_epoch = terms(plan, frames)
            epoch = here.epoch
        own = of_epoch[plan.begins[here.epoch_step] : plan.begins[here.epoch_step + 1]]
        shares = plan.shares(here.epoch_step, line["world_size"])
        workers[: len(shares)] = [own[numbers].sum(0) for numbers in shares]
    return found


def coefficients(cost: CostConfig) -> np.ndarray:
    """Return the costs in the order of TERMS: float64 [4]."""
    return np.array([getattr(cost, term) for term in TERMS])


def predicted(held: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Return the predicted time of each step, that of its slowest worker: float64 [steps]."""
    return (held @ cost).max(axis=1)


def fitted(held: np.ndarray, seconds: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the costs, seconds, that predict the steps' times best: float64 [4], none below 0.

    What the steps do not tell apart, because each has as much of both, is split as at present: the
    present shares of the time weigh as much as one step. Steps that are far off weigh little.

    Args:
        held: what multiplies TERMS, per step and worker, float64 [steps, W, 4].
        seconds: measured time of each step, float64 [steps].
        present: the present costs in any unit, float64 [4].
    """
    # in shares of the mean time, so that all four are of one size
    mean = held.max(axis=1).mean(axis=0)
    scaled = held / mean
    times = seconds / seconds.mean()
    before = present * mean / (present * mean).sum()

    shares = before
    for _ in range(ROUNDS):
        slowest = np.argmax(scaled @ shares, axis=1)
        own = scaled[np.arange(len(scaled)), slowest]
        # as of the loss that grows like an absolute error (Holland and Welsch, 1977)
        weight = (1 + ((own @ shares - times) / NOISE) ** 2) ** -0.25
        rows = np.concatenate([weight[:, None] * own, np.eye(len(TERMS))])
        shares = not_negative(rows, np.concatenate([weight * times, before]))
    return shares * seconds.mean() / mean


def not_negative(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return x >= 0 that makes rows @ x - values least squares: float64 [4].

    Of the few sets of terms that may be above 0 each is tried.
    """
    best, least = np.zeros(len(TERMS)), np.inf
    for used in itertools.product((False, True), repeat=len(TERMS)):
        found = np.zeros(len(TERMS))
        found[list(used)] = np.linalg.lstsq(rows[:, used], values, rcond=None)[0]
        miss = float(np.square(rows @ found - values).sum())
        if miss < least and (found >= 0).all():
            best, least = found, miss
    return best


def median_error(held: np.ndarray, seconds: np.ndarray, cost: np.ndarray) -> float:
    """Return by how much the times of steps are missed, the unit of the costs left open.

    Args:
        held: see `fitted`.
        seconds: the same.
        cost: costs in any unit, float64 [4].
    """
    found = predicted(held, cost)
    found *= np.median(seconds / found)
    return float(np.median(abs(found / seconds - 1)))


def like_budget(found: np.ndarray, schedule: Schedule, epoch: int, frames: np.ndarray) -> float:
    """Return the budget that cuts an epoch into as many micro-batches as the run's plan does.

    Args:
        found: costs in the order of TERMS, float64 [4].
        schedule: order of the run.
        epoch: number of the epoch.
        frames: padded frames by row of the manifest, int64.
    """
    cut = schedule.cut
    present = schedule.plan(epoch)
    wanted = len(present.costs) - present.fill

    def count(budget: float) -> int:
        plan = replace(cut.plan, mode="cost", cost=CostConfig(budget, *found.tolist()))
        made = replace(cut, plan=plan).epoch_plan(
            schedule.rows, schedule.frames, schedule.phones, epoch
        )
        return len(made.costs) - made.fill

    costs = terms(present, frames) @ found
    low, high = float(costs.min()), 2 * float(costs.max())
    while high > low * (1 + PRECISION):
        middle = (low + high) / 2
        low, high = (low, middle) if count(middle) <= wanted else (middle, high)
    return high
