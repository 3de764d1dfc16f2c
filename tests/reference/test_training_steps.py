"""Three whole training steps give the reference trainer's losses, gradients and parameters.

In float64, where rounding crosses no kinks, every number of every step on any CPU. In float32 what
is robust: the first step, and of the later ones the scalars alone.
"""

import math
from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tests.reference import double
from tests.reference.goldens import OWN, REFERENCE
from tests.reference.single_steps import steps_in_fp32_and_bf16
from tests.reference.training import Reduction, Trace, logged, run_steps, utterance
from trainable.learning.state import TrainState

pytestmark = pytest.mark.medium  # each is about the same few steps

FILE = REFERENCE.json("train_steps")
STEPS = range(len(FILE["steps"]))
DOUBLE = REFERENCE.json(double.NAME) if REFERENCE.holds(double.NAME) else None

# Bounds in float32, relative, beside ten times the spread of the reference's own runs. Another CPU
# may cross a kink that these runs did not meet. One that they did moves losses of the first step by
# 1e-5, gradients' norms by 1.4e-3; of the steps after it losses by 1.1e-4, norms of a network's
# gradients by 1.1e-3.
LOSS_RTOL = (1e-4, 1e-3, 5e-3)  # of each step
GRAD_NORM_RTOL = (2e-3, 1e-2, 2e-2)
GRADIENT_RTOL = 3e-3
COMPARABLE = 1e-3  # spread of the reference's own runs, up to which a parameter is compared
FLIPS = 0.01  # of a parameter's elements, whose tiny gradient may change its sign


@cache
def trained(reduction: Reduction) -> list[Trace]:
    if reduction == "fast" and REFERENCE is OWN:
        return steps_in_fp32_and_bf16()[0]  # once for tests/trainable/learning/test_single_steps.py
    return list(run_steps(REFERENCE, FILE, reduction))


@cache
def doubled_with_gradients() -> tuple[list[Trace], dict[str, Tensor]]:
    """The steps in float64, and the gradients of the generator's parameters in the first one."""
    assert DOUBLE is not None
    gradients: dict[str, Tensor] = {}

    def keep(state: TrainState, *_: Any) -> None:
        def note(*_: Any) -> None:
            for key, p in state.nets["g"].named_parameters():
                if p.grad is not None:
                    gradients.setdefault(key, p.grad.clone())

        if not gradients:
            state.optimizers["g"].register_step_pre_hook(note)

    steps = list(run_steps(REFERENCE, DOUBLE, "fast", dtype=torch.float64, before=keep))
    return steps, gradients


def doubled() -> list[Trace]:
    return doubled_with_gradients()[0]


def comparable(step: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """(network, parameter, observed spread) of those that the reference's own runs agree on."""
    return [
        (name, key, spread)
        for name, parameters in step["observed"].items()
        for key, spread in parameters.items()
        if spread["grad_norm_rel"] < COMPARABLE
    ]


def check_names(trace: Trace, expected: dict[str, Any]) -> None:
    """The step has the reference's scalars, gradients and parameters, and no others."""
    absent = {tag for tag, v in trace.scalars.items() if math.isnan(v) and utterance(tag) >= 0}
    assert set(trace.scalars) - absent == set(logged(expected))
    for name, own in expected["grads"].items():
        assert set(trace.grads[name]) == {key for key, value in own.items() if value is not None}
    for name, own in expected["params"].items():
        assert set(trace.params[name]) == set(own)
    assert set(trace.grads) == set(expected["grads"])
    assert set(trace.params) == set(expected["params"])


def check_course(trace: Trace, expected: dict[str, Any], number: int) -> None:
    """The order of the networks, the random draws and the alignment's noise."""
    # the discriminators do not depend on each other
    assert trace.order[-1] == expected["optimizer_order"][-1] == "g"
    assert sorted(trace.order) == sorted(expected["optimizer_order"])
    assert [kind for kind, _ in trace.draws] == [kind for kind, _ in expected["draws_per_step"]]
    if number == 0:  # the file in float32 repeats the first batch's shapes for all steps
        assert trace.draws == expected["draws_per_step"]
    assert trace.mas_noise_scale == pytest.approx(expected["mas_noise_scale"], rel=1e-9)


def test_most_parameters_of_the_projects_copy_are_compared():
    first = OWN.json("train_steps")["steps"][0]
    assert len(comparable(first)) > 0.9 * sum(len(own) for own in first["observed"].values())


needs_double = pytest.mark.skipif(DOUBLE is None, reason=f"the set has no {double.NAME}.json")
every_double_step = pytest.mark.parametrize("number", range(len((DOUBLE or FILE)["steps"])))
every_step = pytest.mark.parametrize("number", STEPS)
every_reduction = pytest.mark.parametrize("reduction", get_args(Reduction))


@needs_double
@every_double_step
@pytest.mark.parametrize("kind", get_args(double.Kind))
def test_double(number, kind):
    found = double.distances(doubled()[number], DOUBLE["steps"][number])
    own = [distance for distance in found if distance.kind == kind]
    print(*double.largest(own).values())
    assert not [distance for distance in own if distance.beyond]


@needs_double
@every_double_step
def test_double_course(number):
    trace, expected = doubled()[number], DOUBLE["steps"][number]
    check_names(trace, expected)
    check_course(trace, expected, number)
    assert trace.draws == expected["draws_per_step"]
    assert trace.spectrogram == pytest.approx(expected["spec_checksum"], rel=double.BOUND)


@every_reduction
@every_step
def test_scalars(number, reduction):
    trace, expected = trained(reduction)[number], FILE["steps"][number]
    beyond = []
    for tag, value in logged(expected).items():
        by_step = GRAD_NORM_RTOL if tag.startswith("grad_norm_") else LOSS_RTOL
        rtol = by_step[min(number, len(by_step) - 1)]
        rtol = max(rtol, 10 * expected["scalar_observed_rel_error"].get(tag, 0.0))
        if trace.scalars[tag] != pytest.approx(value, rel=rtol, abs=0):
            beyond.append((tag, trace.scalars[tag], value))
    assert not beyond


@every_reduction
def test_gradients(reduction):
    trace, expected = trained(reduction)[0], FILE["steps"][0]
    beyond = []
    for name, key, spread in comparable(expected):
        if expected["grads"][name][key] is None:
            continue
        (total, norm), (own_total, own_norm) = expected["grads"][name][key], trace.grads[name][key]
        atol = (10 * spread["grad_norm_rel"] + GRADIENT_RTOL) * norm
        # The manifest names no tolerance for the sum. By Cauchy-Schwarz it moves by no more than
        # the root of the count times the norm of the difference, and the latter is more than the
        # difference of the norms.
        by_sum = 10 * math.sqrt(trace.numel[name][key]) * atol
        if not (abs(own_total - total) <= by_sum and abs(own_norm - norm) <= atol):
            beyond.append((name, key, trace.grads[name][key], expected["grads"][name][key]))
    assert not beyond


@every_reduction
def test_parameters(reduction):
    """AdamW's first step moves every element by the learning rate, whatever its gradient's size.

    So a sign that is off moves the sum by twice the learning rate, and the distance moved not.
    """
    trace, expected = trained(reduction)[0], FILE["steps"][0]
    beyond = []
    for name, key, spread in comparable(expected):
        ours, theirs = trace.params[name][key], expected["params"][name][key]
        count, moved = trace.numel[name][key], theirs[2]
        atol = 10 * spread["param_sum_abs"] + 1e-6 * count
        flips = 2 * trace.scalars["learning_rate"] * max(2, FLIPS * count)
        limits = (atol + flips, atol + flips, atol + GRADIENT_RTOL * moved)
        off = [abs(own - value) for own, value in zip(ours, theirs, strict=True)]
        if not all(o <= limit for o, limit in zip(off, limits, strict=True)):
            beyond.append((name, key, ours, theirs))
    assert not beyond


@every_reduction
@every_step
def test_order_draws_and_alignment_noise(number, reduction):
    trace, expected = trained(reduction)[number], FILE["steps"][number]
    check_names(trace, expected)
    check_course(trace, expected, number)
