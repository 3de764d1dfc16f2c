"""Single training steps in another arithmetic, each from the state that the reference's reached.

That state is not stored: it is our own after the steps in fp32 on the CPU, which equals the
reference's.
"""

import contextlib
import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from data.config import DataConfig
from tests.reference.goldens import OWN
from tests.reference.rule import Noise
from tests.reference.training import GoldenBatch, Trace, run_steps
from trainable.config import ClipNorm
from trainable.learning.state import AUTOCAST_TYPES, TrainState
from trainable.learning.step import TrainingStep

FILE = OWN.json("train_steps")
STEPS = range(len(FILE["steps"]))


@contextlib.contextmanager
def full_fp32() -> Iterator[None]:
    """Compute without TF32; in one thread, as small networks do not gain from more."""
    precision = torch.get_float32_matmul_precision()
    tf32 = torch.backends.cudnn.allow_tf32
    threads = torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)


def moved(state: TrainState, device: torch.device) -> TrainState:
    """Return a copy of the state on a device."""
    state = copy.deepcopy(state)
    state.slm.to(device)
    for name, net in state.nets.items():
        net.to(device)  # keeps the parameters, which the optimizers know
        state.optimizers[name].load_state_dict(state.optimizers[name].state_dict())
    return state


Scalars = dict[str, float]


def single_steps(
    device: str, precisions: Sequence[str], count: int = len(STEPS)
) -> tuple[list[Trace], dict[str, list[Scalars]]]:
    """Return each step in fp32 on the CPU, and by precision the scalars of those on `device`."""
    found: dict[str, list[Scalars]] = {precision: [] for precision in precisions}
    there = torch.device(device)

    def again(before: TrainState, batch: GoldenBatch, data: DataConfig) -> None:
        for precision, scalars in found.items():
            state = moved(before, there)
            train = replace(
                state.train, precision=precision, clip_norm=ClipNorm("none", "none", "none", "none")
            )
            state.slm.store_as(AUTOCAST_TYPES[precision])
            with Noise.of(FILE["noise"]):
                report = TrainingStep(state, train, data)([(0, batch.to(there))])
            scalars.append({tag: value.item() for tag, value in report.scalars.items()})

    traces = itertools.islice(run_steps(OWN, FILE, "fast", before=again), count)
    return list(traces), found


@functools.cache
def steps_in_fp32_and_bf16() -> tuple[list[Trace], list[Scalars]]:
    """Return each step on the CPU in fp32, and the scalars of those in bf16."""
    traces, found = single_steps("cpu", ["bf16"])
    return traces, found["bf16"]
