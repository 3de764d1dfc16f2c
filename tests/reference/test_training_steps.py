"""Three whole training steps give the reference trainer's losses, gradients and parameters."""

import math
from collections.abc import Callable
from functools import cache
from typing import get_args

import pytest

from tests.reference.goldens import OWN, REFERENCE
from tests.reference.training import Reduction, Trace, run_steps
from trainable.state import LOGGED_ITEMS

FILE = REFERENCE.json("train_steps")
STEPS = range(len(FILE["steps"]))
COMPARABLE = 1e-3  # spread of the reference's own runs, up to which a parameter is compared (see the manifest)
ROUNDING = 2e-6  # relative; the spread that the reference's few runs happened to show may be smaller than fp32 resolves
LOSS_RTOL = (1e-5, 2e-4, 1e-3)  # of each step; from the manifest, as the next
GRAD_NORM_RTOL = (2e-3, 1e-2)
NUDGES = 4  # runs from weights that are off by their rounding


@cache
def trained(reduction: Reduction) -> list[Trace]:
    return list(run_steps(REFERENCE, FILE, reduction))


@cache
def nudged(seed: int) -> list[Trace]:
    return list(run_steps(REFERENCE, FILE, "fast", nudge=seed))


def differs(
    take: Callable[[Trace], float], number: int, reduction: Reduction, expected: float, tolerance: float
) -> bool:
    """Whether a number of a step is further from the reference than the tolerance allows.

    Rounding can push a value over a kink, of a ReLU or of an L1 distance, which the reference's few runs need not have
    met. So a number beyond the tolerance may still be no further off than ten times what our own rounding moves it by,
    as other numbers of the manifest are allowed to be. That is looked for where it is needed only.
    """
    value, plain = take(trained(reduction)[number]), take(trained("fast")[number])
    distance = abs(value - expected)
    moved = (abs(take(nudged(seed)[number]) - plain) for seed in range(NUDGES))
    return not (distance <= tolerance or (math.isfinite(value) and any(distance <= 10 * by for by in moved)))


def comparable(number: int) -> list[tuple[str, str, dict[str, float]]]:
    """(network, parameter, observed spread) of those that the reference's own runs agree on."""
    return [
        (name, key, spread)
        for name, parameters in FILE["steps"][number]["observed"].items()
        for key, spread in parameters.items()
        if spread["grad_norm_rel"] < COMPARABLE
    ]


def test_most_parameters_of_the_projects_copy_are_compared():
    for number, step in enumerate(OWN.json("train_steps")["steps"]):
        spreads = [spread for parameters in step["observed"].values() for spread in parameters.values()]
        share = sum(spread["grad_norm_rel"] < COMPARABLE for spread in spreads) / len(spreads)
        assert share > (0.9 if number == 0 else 0.6), share  # rounding grows from step to step


every_step = pytest.mark.parametrize("number", STEPS)
every_reduction = pytest.mark.parametrize("reduction", get_args(Reduction))


@every_reduction
@every_step
def test_scalars(number, reduction):
    trace, expected = trained(reduction)[number], FILE["steps"][number]
    logged = {tag: value for tag, value in expected["scalars"].items() if utterance(tag) < LOGGED_ITEMS}
    absent = {tag for tag, value in trace.scalars.items() if math.isnan(value) and utterance(tag) >= 0}
    assert set(trace.scalars) - absent == set(logged)
    beyond = []
    for tag, value in logged.items():
        by_step = GRAD_NORM_RTOL if tag.startswith("grad_norm_") else LOSS_RTOL
        rtol = by_step[min(number, len(by_step) - 1)]
        rtol = max(rtol, 10 * expected["scalar_observed_rel_error"][tag])
        if differs(lambda t, tag=tag: t.scalars[tag], number, reduction, value, rtol * abs(value)):
            beyond.append((tag, trace.scalars[tag], value))
    assert not beyond


def utterance(tag: str) -> int:
    """The utterance of the batch whose loss it is; -1 for a loss of the whole batch."""
    prefix = ("loss/dur_disc_r/", "loss/dur_disc_g/", "loss/g/dur_gen_")
    return next((int(tag.removeprefix(p)) for p in prefix if tag.startswith(p)), -1)


@every_reduction
@every_step
def test_gradients(number, reduction):
    grads, expected = trained(reduction)[number].grads, FILE["steps"][number]["grads"]
    assert {name: set(parameters) for name, parameters in grads.items()} == {
        name: {key for key, value in parameters.items() if value is not None} for name, parameters in expected.items()
    }
    numel, beyond = trained(reduction)[number].numel, []
    for name, key, spread in comparable(number):
        norm = expected[name][key][1]
        atol = (10 * spread["grad_norm_rel"] + ROUNDING) * norm
        # The manifest names no tolerance for the sum. By Cauchy-Schwarz it moves by no more than the root of the count
        # times the norm of the difference, and the latter is more than the difference of the norms.
        for column, limit in enumerate((10 * math.sqrt(numel[name][key]) * atol, atol)):
            if differs(
                lambda t, name=name, key=key, column=column: t.grads[name][key][column],
                *(number, reduction, expected[name][key][column], limit),
            ):
                beyond.append((name, key, column, grads[name][key][column], expected[name][key][column]))
    assert not beyond


@every_reduction
@every_step
def test_parameters(number, reduction):
    params, expected = trained(reduction)[number].params, FILE["steps"][number]["params"]
    assert {name: set(own) for name, own in params.items()} == {name: set(own) for name, own in expected.items()}
    numel, beyond = trained(reduction)[number].numel, []
    for name, key, spread in comparable(number):
        atol = 10 * spread["param_sum_abs"] + 1e-6 * numel[name][key]
        for column, value in enumerate(expected[name][key]):
            if differs(
                lambda t, name=name, key=key, column=column: t.params[name][key][column],
                *(number, reduction, value, atol),
            ):
                beyond.append((name, key, column, params[name][key][column], value))
    assert not beyond


@every_reduction
@every_step
def test_order_draws_and_alignment_noise(number, reduction):
    trace, expected = trained(reduction)[number], FILE["steps"][number]
    # the discriminators do not depend on each other
    assert trace.order[-1] == expected["optimizer_order"][-1] == "g"
    assert sorted(trace.order) == sorted(expected["optimizer_order"])
    assert [kind for kind, _ in trace.draws] == [kind for kind, _ in expected["draws_per_step"]]
    if number == 0:  # the file repeats the first batch's shapes for all steps
        assert trace.draws == expected["draws_per_step"]
    assert trace.mas_noise_scale == pytest.approx(expected["mas_noise_scale"], rel=1e-9)
