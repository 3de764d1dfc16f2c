"""Single steps in another arithmetic, each from the state that the reference's steps have reached.

That state is not stored: it is our own after the steps in fp32 on the CPU, which equals the
reference's.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch

from data.config import DataConfig
from tests.reference.goldens import GPUS, OWN
from tests.reference.rule import Noise
from tests.reference.training import GoldenBatch, run_steps
from trainable.config import ClipNorm
from trainable.learning.state import AUTOCAST_TYPES, TrainState
from trainable.learning.step import TrainingStep

FILE = OWN.json("train_steps")
STEPS = range(len(FILE["steps"]))


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Without TF32; one thread, as small networks do not gain from more."""
    precision, tf32, threads = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.get_num_threads(),
    )
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)


def moved(state: TrainState, device: torch.device) -> TrainState:
    """A copy of the state on a device."""
    state = copy.deepcopy(state)
    state.slm.to(device)
    for name, net in state.nets.items():
        net.to(device)  # keeps the parameters, which the optimizers know
        state.optimizers[name].load_state_dict(state.optimizers[name].state_dict())
    return state


@cache
def single_steps(device: str, precision: str) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Scalars of each step in fp32 on the CPU, and the same in `precision` on `device`."""
    found = []

    def again(before: TrainState, batch: GoldenBatch, data: DataConfig) -> None:
        state = moved(before, torch.device(device))
        train = replace(
            state.train, precision=precision, clip_norm=ClipNorm("none", "none", "none", "none")
        )
        state.slm.store_as(AUTOCAST_TYPES[precision])
        with Noise.of(FILE["noise"]):
            report = TrainingStep(state, train, data)([(0, batch.to(torch.device(device)))])
        found.append({tag: value.item() for tag, value in report.scalars.items()})

    plain = [trace.scalars for trace in run_steps(OWN, FILE, "fast", before=again)]
    return list(zip(plain, found, strict=True))


@pytest.mark.medium
@pytest.mark.parametrize("device", ["cpu", *GPUS])
@pytest.mark.parametrize("number", STEPS)
def test_bf16_is_within_two_percent(number, device):
    full, low = single_steps(device, "bf16")[number]
    losses = [
        tag for tag, value in full.items() if tag.startswith("loss/") and not math.isnan(value)
    ]
    off = {tag: (low[tag] - full[tag]) / full[tag] for tag in losses}
    print(
        {tag: f"{share:+.2%}" for tag, share in sorted(off.items(), key=lambda item: -abs(item[1]))}
    )
    assert all(abs(share) <= 0.02 for share in off.values())


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("number", STEPS)
def test_fp32_on_a_gpu_gives_the_references_numbers(number, device):
    """To what the order of a GPU's sums leaves, if that is more than the manifest's tolerance."""
    expected, (_, found) = FILE["steps"][number], single_steps(device, "fp32")[number]
    for tag, value in expected["scalars"].items():
        if tag != "learning_rate":
            least = 1e-2 if tag.startswith("grad_norm_") else (1e-4, 2e-4, 1e-3)[number]
            rtol = max(least, 10 * expected["scalar_observed_rel_error"][tag])
            assert found[tag] == pytest.approx(value, rel=rtol), tag
