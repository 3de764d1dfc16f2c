"""How many plans of convolutions a training makes: `python -m benchmarks.plans [--json FILE]`.

cuDNN plans each convolution once per shape and keeps the last 10,000 plans; a new one costs the
host about a millisecond. A step of the full model is run once without values, to learn which
convolutions it has and how their shapes follow from a micro-batch's (B, T_y, T_x): utterances,
frames, phones with their blanks. Then the training's own plan of 20,000 synthetic utterances
(benchmarks.padding) is walked through, micro-batch by micro-batch, for each of several
`data.plan.pad_to`: new plans per step, and the share of the frames that padding costs.
"""

import argparse
import json
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.fake_gpu import fake_state
from benchmarks.padding import synthetic
from data.audio import spectrogram
from data.config import DataConfig
from data.plan.blocks import BLOCK
from data.plan.epoch_plan import rounded_up
from data.plan.history import Cut
from data.settings.plan import PadTo
from job.reports.console import table
from job.settings.cli import read_config
from trainable.config import TrainConfig
from trainable.learning.rehearsal import Rehearsal, Shape, made_up
from trainable.model_config import ModelConfig

KEPT = 10_000  # plans in cuDNN's cache, unless TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT says otherwise
WINDOWS = ((0, 200), (200, 1000), (1000, 5000), (5000, 9000))
PADDINGS = ((1, 1), (16, 16), (16, 32), (16, 64), (32, 32), (32, 64), (64, 32))
BASE_PRESET = Path("job/presets/base.yaml")
SPREAD = 0.4  # of the durations, as benchmarks.padding
BASE: Shape = (2, 40, 21)
LARGER: Shape = (3, 56, 277)
CPU = torch.device("cpu")
Plan = tuple[Hashable, ...]


@dataclass(frozen=True)
class Convolution:
    """A convolution of a step: forward, or one of its two gradients.

    Attributes:
        kind: all that does not depend on the micro-batch.
        size: the input's shape at the micro-batch BASE.
        depends_on: which of B, T_y and T_x change that shape.
    """

    kind: Plan
    size: tuple[int, ...]
    depends_on: tuple[bool, bool, bool]


class Convolutions(TorchDispatchMode):
    """Notes the convolutions that run inside, in order: (what it is, its input's shape)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Plan, tuple[int, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Note a convolution, and run it."""
        name = func._schema.name
        if name == "aten::convolution":
            x, weight, _, *settings = args
            self._note("forward", x, weight, settings)
        elif name == "aten::convolution_backward":
            _, x, weight, _, *settings, (of_input, of_weight, _) = args
            if of_input:
                self._note("input", x, weight, settings)
            if of_weight:
                self._note("weight", x, weight, settings)
        return func(*args, **(kwargs or {}))

    def _note(self, of: str, x: Any, weight: Any, settings: list) -> None:
        fixed = tuple(tuple(s) if isinstance(s, list) else s for s in settings)
        self.calls.append(((of, x.dtype, tuple(weight.shape), *fixed), tuple(x.shape)))


def convolutions(model: ModelConfig, train: TrainConfig, data: DataConfig) -> list[Convolution]:
    """Return the distinct convolutions of a step, from steps of two shapes without values."""
    base, larger = run_without_values(model, train, data, (BASE, LARGER))
    made = []
    for (kind, size), (same_kind, other) in zip(base, larger, strict=True):
        assert kind == same_kind
        grown = [b - a for a, b in zip(size, other, strict=True)]
        made.append(Convolution(kind, size, grown_by(grown)))
    return list(dict.fromkeys(made))


def grown_by(grown: Iterable[int]) -> tuple[bool, bool, bool]:
    """Tell by how much a shape's lengths have grown whether it was because of B, T_y and T_x.

    Each length follows one of the three, at most eight times over: BASE and LARGER tell them apart.
    """
    of_b, of_frames, of_phones = (b - a for a, b in zip(BASE, LARGER, strict=True))
    sizes = [size for size in grown if size]
    return (
        any(of_b <= size < of_frames for size in sizes),
        any(of_frames <= size < of_phones for size in sizes),
        any(of_phones <= size for size in sizes),
    )


@contextmanager
def without_values(model: ModelConfig, train: TrainConfig, data: DataConfig) -> Iterator[Rehearsal]:
    """Yield a step as a GPU runs it, whose tensors have shapes and no values."""
    with (
        # the layout of a CPU has other convolutions
        patch("trainable.networks.layers.weight_norm.has_channels_last", lambda _: False),
        # a tensor without values that is made here must not be found by whoever comes later
        patch("data.audio.spectrogram._window", spectrogram._window.__wrapped__),
        patch("data.audio.spectrogram._mel_basis", spectrogram._mel_basis.__wrapped__),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield Rehearsal(fake_state(train, model, data, CPU), train, data)


def run_without_values(
    model: ModelConfig, train: TrainConfig, data: DataConfig, shapes: Iterable[Shape]
) -> list[list[tuple[Plan, tuple[int, ...]]]]:
    """Return the convolutions of a step for each shape of a micro-batch, as a GPU runs them."""
    found = []
    with without_values(model, train, data) as step:
        for shape in shapes:
            with Convolutions() as seen:
                step([(0, made_up(shape, model.bert_channels, data, CPU))])
            found.append(seen.calls)
    return found


def groups(made: list[Convolution]) -> Counter[tuple[bool, ...]]:
    """Return how many convolutions depend on which of (B, T_y, T_x)."""
    return Counter(own.depends_on for own in made)


def epoch_shapes(pad_to: PadTo, steps: int) -> Iterator[tuple[Shape, int]]:
    """Yield the padded shape and the frames without padding of each micro-batch, epoch by epoch."""
    frames, phones = synthetic(SPREAD)
    rows = np.arange(len(frames))
    blanked = 2 * phones + 1
    settings = replace(read_config(BASE_PRESET).data.plan, pad_to=pad_to)
    cut = Cut(0, 1, 32, True, settings, BLOCK)
    done = 0
    for epoch in range(steps):
        plan = cut.epoch_plan(rows, frames, phones, epoch)
        for step in range(plan.steps):
            own = plan.micro_batch(step, 0)
            longest = int(frames[own].max()), int(blanked[own].max())
            shape = (
                len(own),
                rounded_up(longest[0], pad_to.frames),
                rounded_up(longest[1], pad_to.tokens),
            )
            yield shape, int(frames[own].sum())
            done += 1
            if done == steps:
                return


def walk(counts: Counter[tuple[bool, ...]], pad_to: PadTo) -> dict[str, Any]:
    """Return new plans per step in each window, and what padding costs.

    Args:
        counts: convolutions by what their plans depend on.
        pad_to: multiples that lengths are padded to.
    """
    steps = WINDOWS[-1][1]
    # the convolutions that depend on the same lengths are planned, used and forgotten together
    cache: OrderedDict[Hashable, int] = OrderedDict()
    kept = 0
    new = np.zeros(steps, np.int64)
    own_frames = all_frames = 0
    shapes = set()
    for step, (shape, frames) in enumerate(epoch_shapes(pad_to, steps)):
        shapes.add(shape)
        own_frames += frames
        all_frames += shape[0] * shape[1]
        for depends_on, count in counts.items():
            key = (depends_on, *(n for n, does in zip(shape, depends_on, strict=True) if does))
            if key in cache:
                cache.move_to_end(key)
                continue
            new[step] += count
            cache[key] = count
            kept += count
            while kept > KEPT:
                kept -= cache.popitem(last=False)[1]
    return {
        "new_plans_per_step": {f"{a}-{b}": float(new[a:b].mean()) for a, b in WINDOWS},
        "new_plans": int(new.sum()),
        "distinct_shapes": len(shapes),
        "padded_frames": 1 - own_frames / all_frames,
    }


def measure(model: ModelConfig, paddings: tuple[tuple[int, int], ...] = PADDINGS) -> dict[str, Any]:
    """Return the figures of several paddings, (frames, tokens) each, and of the default."""
    made = convolutions(model, TrainConfig(), DataConfig())
    counts = groups(made)
    default = read_config(BASE_PRESET).data.plan.pad_to
    pairs = dict.fromkeys([*paddings, (default.frames, default.tokens)])
    found = {f"{a}/{b}": walk(counts, PadTo(a, b)) for a, b in pairs}
    unpadded = found.get("1/1", {}).get("padded_frames", 0.0)
    for own in found.values():
        # frames computed per frame without pad_to, less one
        own["cost"] = (1 - unpadded) / (1 - own["padded_frames"]) - 1
    return {
        "convolutions": len(made),
        "depending_on_lengths": sum(n for depends_on, n in counts.items() if any(depends_on[1:])),
        "default": f"{default.frames}/{default.tokens}",
        "pad_to": found,
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__)
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    result = measure(ModelConfig())
    windows = [f"{a}-{b}" for a, b in WINDOWS]
    rows = [
        [
            name,
            *(f"{own['new_plans_per_step'][window]:.1f}" for window in windows),
            f"{own['padded_frames']:.2%}",
            f"{own['cost']:.2%}",
        ]
        for name, own in result["pad_to"].items()
    ]
    print(f"{result['convolutions']} convolutions per step; new plans per step, by steps:")
    print(table(["pad_to", *windows, "padding", "cost"], rows, align_right=True))
    print(f"default of data.plan.pad_to: {result['default']}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
