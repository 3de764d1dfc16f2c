"""Our training steps in float64 beside the reference's: `python -m tests.reference.double`.

Prints the largest distance of each step; REFERENCE_DIR names another set. Without rounding that
crosses kinks, of a ReLU or of an L1 distance, the numbers hold on any CPU.
The bounds are those of `tolerance` in train_steps_fp64.json.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tests.reference.goldens import REFERENCE
from tests.reference.training import Trace, logged, run_steps

Kind = Literal["scalars", "gradients", "parameters", "zero_gradient"]
NAME = "train_steps_fp64"
BOUND = 1e-9
ZERO_GRADIENT = 1e-12  # of the network's gradient norm
ZERO_PARAMETER = 1e-7  # absolute; what AdamW makes of rounding alone


@dataclass(frozen=True)
class Distance:
    """How far a number is from the reference's, and how far it may be."""

    kind: Kind
    name: str
    value: float
    bound: float

    @property
    def beyond(self) -> bool:
        """Whether it is too far; a NaN is."""
        return not self.value <= self.bound


def distances(trace: Trace, step: dict[str, Any]) -> list[Distance]:
    """Distances of all numbers of a step.

    Scalars relative to themselves; a gradient's sum and norm to its norm; a parameter's sum, norm
    and distance moved to the distance moved. Where a gradient is zero but for rounding: its norm
    relative to the network's, and the parameter's sum as it is.

    Args:
        trace: of our step.
        step: of train_steps_fp64.json.
    """
    return [*_scalars(trace, step), *_gradients(trace, step), *_parameters(trace, step)]


def _relative(ours: list[float], theirs: list[float], size: float) -> float:
    """The largest difference, in units of `size`; NaN where there is one."""
    differences = [abs(own - value) for own, value in zip(ours, theirs, strict=True)]
    if any(map(math.isnan, differences)):
        return math.nan
    if size:
        return max(differences) / size
    return math.inf if any(differences) else 0.0


def _scalars(trace: Trace, step: dict[str, Any]) -> Iterator[Distance]:
    for tag, value in logged(step).items():
        relative = _relative([trace.scalars[tag]], [value], abs(value))
        yield Distance("scalars", tag, relative, BOUND)


def _gradients(trace: Trace, step: dict[str, Any]) -> Iterator[Distance]:
    for name, own in step["grads"].items():
        whole = math.hypot(*(numbers[1] for numbers in own.values() if numbers))
        for key, numbers in own.items():
            if numbers is None:
                continue
            found, label = trace.grads[name][key], f"{name} {key}"
            if key in step["zero_gradient"][name]:
                yield Distance("zero_gradient", label, found[1] / whole, ZERO_GRADIENT)
            else:
                yield Distance("gradients", label, _relative(found, numbers, numbers[1]), BOUND)


def _parameters(trace: Trace, step: dict[str, Any]) -> Iterator[Distance]:
    for name, own in step["params"].items():
        for key, numbers in own.items():
            found, label = trace.params[name][key], f"{name} {key}"
            if key in step["zero_gradient"][name]:
                yield Distance("zero_gradient", label, abs(found[0] - numbers[0]), ZERO_PARAMETER)
            else:
                size = numbers[2] or numbers[1]  # its norm, where it has not moved
                yield Distance("parameters", label, _relative(found, numbers, size), BOUND)


def largest(found: list[Distance]) -> dict[Kind, Distance]:
    """The one of each kind that is closest to its bound, or furthest beyond."""
    worst: dict[Kind, Distance] = {}
    for distance in sorted(found, key=lambda d: d.value / d.bound):
        worst[distance.kind] = distance
    return worst


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    file = REFERENCE.json(NAME)
    steps = run_steps(REFERENCE, file, "fast", dtype=torch.float64)
    for number, (trace, step) in enumerate(zip(steps, file["steps"], strict=True)):
        found = distances(trace, step)
        print(f"step {number}: {sum(d.beyond for d in found)} of {len(found)} numbers beyond")
        for kind, distance in largest(found).items():
            print(f"  {kind:13} {distance.value:.1e} (bound {distance.bound:.0e}) {distance.name}")


if __name__ == "__main__":
    main()
