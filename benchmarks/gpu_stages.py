"""What benchmarks.gpu measures, stage by stage."""

import hashlib
import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.as_reference import AsReferenceStep
from benchmarks.batch_finder import PHONES_PER_FRAME, USED, grown, propose, total_gib
from benchmarks.kernels import busy, kernels_of
from benchmarks.launches import count_step
from benchmarks.pieces import pieces
from benchmarks.step import (
    Subject,
    full_state,
    in_turn,
    largest_difference,
    peak_gib,
    peak_of_a_step,
    synthetic_batch,
    warm,
)
from data.audio.recording import encode_flac
from data.config import DataConfig
from data.stream.collate import collate
from data.stream.feeding import Courier
from data.text.symbols import SYMBOLS
from tests.reference.single_steps import full_fp32, single_steps
from trainable import compiling
from trainable.config import TrainConfig
from trainable.flops import attainable, peak
from trainable.hardware import set_up_torch
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.model_config import ModelConfig, SlmConfig
from trainable.weights.slm import load_slm

Found = dict[str, Any]
MODES = ("fp32", "bf16", "bf16+compile")
BOTH = ("fp32", "bf16")
SMALL = ModelConfig(
    n_speakers=8,
    gin_channels=32,
    inter_channels=32,
    hidden_channels=48,
    filter_channels=64,
    n_layers=3,
    n_layers_trans_flow=3,
    upsample_initial_channel=64,
    bert_channels=32,
    discriminator_width_divisor=16,
    slm=SlmConfig(path="random", initial_channel=8),
)


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        model: sizes of the networks.
        segment: samples that the generator decodes of each utterance.
        utterances: of a micro-batch.
        frames: of each utterance.
        tokens: of each utterance, without the blanks between them.
        lengths: of utterances that the batch finder tries, in frames.
        memory_gib: what a micro-batch may fill; None: most of the device's.
        pairs: steps of each kind that are timed.
        reference_steps: the reference's steps that are repeated.
        compiler: torch.compile's backend.
    """

    model: ModelConfig
    segment: int
    utterances: int
    frames: int
    tokens: int
    lengths: tuple[int, ...]
    memory_gib: float | None
    pairs: int
    reference_steps: int
    compiler: str


FULL = Sizes(ModelConfig(), 16384, 16, 400, 120, (100, 430, 1720), None, 7, 3, "inductor")
TINY = Sizes(SMALL, 4096, 2, 40, 10, (20, 40), 2.5, 1, 1, "eager")


@dataclass(frozen=True)
class Bench:
    """A device, and what is measured on it."""

    device: torch.device
    sizes: Sizes
    threads: int

    def train(self, **changes: Any) -> TrainConfig:
        """Return hyper-parameters."""
        return TrainConfig(segment_size=self.sizes.segment, **changes)

    def state(self, train: TrainConfig) -> TrainState:
        """Return new networks with a random WavLM, of base-plus size beside full ones."""
        data = DataConfig()
        model = self.sizes.model
        if model.slm.path != "random":
            return full_state(train, model, data, self.device)
        torch.manual_seed(0)
        slm = load_slm(model.slm, data.sampling_rate).to(self.device)
        nets = build_networks(model, train, data, slm)
        return TrainState(
            {name: net.to(self.device) for name, net in nets.items()}, slm, model, train
        )

    def step(self, train: TrainConfig) -> TrainingStep:
        """Return a step of new networks, for which torch is set up."""
        set_up_torch(train, self.threads, self.device)
        return TrainingStep(self.state(train), train, DataConfig())

    def batch(self, utterances: int | None = None, frames: int | None = None) -> Any:
        """Return a micro-batch on the CPU, of the sizes' shape or another."""
        tokens = self.sizes.tokens if frames is None else max(1, int(PHONES_PER_FRAME * frames))
        return synthetic_batch(
            utterances or self.sizes.utterances,
            frames or self.sizes.frames,
            tokens,
            self.sizes.model,
            DataConfig(),
        )


def about(bench: Bench) -> Found:
    """Return what the device is."""
    found: Found = {"torch": torch.__version__, "host": platform.processor() or platform.machine()}
    if bench.device.type != "cuda":
        return found | {"device": bench.device.type}
    properties = torch.cuda.get_device_properties(bench.device)
    return found | {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": properties.total_memory / 2**30,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def parity(bench: Bench) -> Found:
    """Repeat the reference's training steps on the device, each from the state on the CPU.

    Returns:
        By precision the largest relative difference of any loss in each step. fp32 is without TF32.
    """
    count = bench.sizes.reference_steps
    with full_fp32():
        here, there = single_steps(str(bench.device), ("fp32", "bf16"), count)
    return {
        precision: [
            largest_difference(_losses(own.scalars), _losses(other))
            for own, other in zip(here, steps, strict=True)
        ]
        for precision, steps in there.items()
    }


def _losses(scalars: Mapping[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in scalars.items() if tag.startswith("loss/")}


def digest(state: TrainState) -> str:
    """Return a hash of all parameters and moments."""
    tensors = [t for name in sorted(state.nets) for t in state.nets[name].state_dict().values()]
    tensors += [t for o in state.optimizers.values() for s in o.state.values() for t in s.values()]
    own = hashlib.sha256()
    for tensor in tensors:
        own.update(tensor.detach().cpu().numpy().tobytes())
    return own.hexdigest()


def repeated(bench: Bench) -> Found:
    """Tell whether exact steps have the same bits: again, in another order, with a graph kept."""
    two = bench.train(reduction="exact", micro_batches_per_step=2)
    one = replace(two, micro_batches_per_step=1)
    batches = [(i, bench.batch(frames=bench.sizes.frames + i).to(bench.device)) for i in range(2)]

    def bits(train: TrainConfig, own: list, keeps_graph: bool = True) -> str:
        step = bench.step(train)
        step.state.reduction.keeps_graph = keeps_graph
        step(own)
        return digest(step.state)

    first = bits(two, batches)
    kept = bits(one, batches[:1])
    return {
        "again": bits(two, batches) == first,
        "in_another_order": bits(two, batches[::-1]) == first,
        "graph_kept_or_made_again": bits(one, batches[:1], keeps_graph=False) == kept,
    }


def determinism(bench: Bench) -> Found:
    """Return `repeated` from a process of its own, since cuBLAS reads its settings once."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(repeated, (bench,))


def subject(bench: Bench, mode: str) -> Subject:
    """Return our step in one of MODES, which has run twice."""
    precision, _, compiled = mode.partition("+")
    train = bench.train(precision=precision, compile="parts" if compiled else "off")
    with patch.object(compiling, "BACKEND", bench.sizes.compiler):
        step = bench.step(train)
    return warm(Subject(step, bench.batch().to(bench.device)))


def speed(bench: Bench, mode: str) -> Found:
    """Time our step beside one of the same networks with the reference's work, in turn.

    Returns:
        Of both steps per second and peak memory; of ours, too: FLOPs, MFU, utterances per second,
        and the seconds of its first step, which compiles.
    """
    ours = subject(bench, mode)
    state, train = ours.step.state, ours.step.train
    theirs = warm(Subject(AsReferenceStep(state, train, DataConfig()), ours.batch))
    _, counted = ours.counted()
    subjects = {"seconds_per_step": ours, "as_reference_seconds_per_step": theirs}
    timed = in_turn(subjects, bench.sizes.pairs)

    precision = mode.partition("+")[0]
    best = peak(bench.device, precision) or attainable(bench.device, precision)
    per_step = timed["seconds_per_step"]
    return {
        "steps_per_s": 1 / per_step,
        "as_reference_steps_per_s": 1 / timed["as_reference_seconds_per_step"],
        "ratio": timed["ratio"],
        "utterances_per_s": bench.sizes.utterances / per_step,
        "peak_gib": peak_of_a_step(ours, bench.device),
        "as_reference_peak_gib": peak_of_a_step(theirs, bench.device),
        "first_step_s": ours.first_s,
        "flops": counted["flops_corrected"],
        "mfu": counted["flops_corrected"] / per_step / best,
    }


def launches(bench: Bench, precision: str) -> Found:
    """Count a step's kernels by the profiler, where there is a GPU, and on fake tensors."""
    counted = count_step(bench.train(precision=precision), bench.batch(), bench.sizes.model)
    found: Found = {
        "counted": counted.all(),
        "counted_by_part": dict(counted.by_part.most_common()),
        "counted_by_operator": dict(counted.by_operator().most_common()),
        "profiled": None,
    }
    step = subject(bench, precision)
    if bench.device.type != "cuda":
        return found
    return found | busy(step.run, bench.device) | kernels_of(step.run, bench.device)


def budget(bench: Bench) -> Found:
    """Find how much a micro-batch may hold; see benchmarks.batch_finder."""
    step = bench.step(bench.train(precision="bf16"))

    def peak_of(utterances: int, frames: int) -> float:
        batch = bench.batch(utterances, frames).to(bench.device)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(bench.device)
        else:
            peak_gib(bench.device, reset=True)
        for _ in range(2):
            step([(0, batch)])
        if bench.device.type == "cuda":
            return torch.cuda.max_memory_reserved(bench.device) / 2**30
        return peak_gib(bench.device)

    memory = bench.sizes.memory_gib or USED * total_gib(bench.device)
    lengths = bench.sizes.lengths
    peaks = {frames: grown(partial(peak_of, frames=frames), memory) for frames in lengths}
    found = propose(peaks, memory) | {"peaks_gib": peaks}
    if bench.device.type == "cuda":
        middle = lengths[1]
        found["fits"] = min(found["max_utterances"], found["max_frames"] // middle)
        found["fits_gib"] = peak_of(found["fits"], middle)
    return found


def shard_row(bench: Bench, rng: np.random.Generator, data: DataConfig) -> Found:
    """Return an utterance as a shard holds it, of random sound and text."""
    sizes = bench.sizes
    wave = 0.1 * rng.standard_normal(sizes.frames * data.hop_length, dtype=np.float32)
    bert = rng.standard_normal((sizes.tokens, sizes.model.bert_channels)).astype(np.float16)
    return {
        "phones": [SYMBOLS[i] for i in rng.integers(1, len(SYMBOLS) - 2, sizes.tokens)],
        "tones": [0] * sizes.tokens,
        "language": "EN",
        "word2ph": [1] * sizes.tokens,
        "bert": bert.tobytes(),
        "bert_width": sizes.model.bert_channels,
        "audio": encode_flac(wave, data.sampling_rate),
        "speaker": "one",
    }


def feeding(bench: Bench) -> Found:
    """Time how micro-batches are decoded on one core, and how they reach the device."""
    data = replace(DataConfig(), spectrogram_on="device")
    rng = np.random.default_rng(0)
    rows = [shard_row(bench, rng, data) for _ in range(bench.sizes.utterances)]
    courier = Courier(bench.device, data)
    decoding, shipping = [], []
    for _ in range(3):
        began = time.perf_counter()
        arrays = collate(rows, range(len(rows)), {"one": 0}, data)
        decoding.append(time.perf_counter() - began)
        began = time.perf_counter()
        courier.ship(arrays).received()
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
        shipping.append(time.perf_counter() - began)
    return {
        "decoded_utterances_per_s_and_core": len(rows) / median(decoding),
        "shipped_utterances_per_s": len(rows) / median(shipping),
    }


def pieces_of(bench: Bench) -> Found:
    """Time single operators beside torch's own; see benchmarks.pieces."""
    return pieces(bench.device, bench.sizes.utterances, bench.sizes.frames)


def stages() -> dict[str, Callable[[Bench], Found]]:
    """Return the stages in their order, the most wanted first."""
    return {
        "about": about,
        "parity": parity,
        "determinism": determinism,
        **{f"speed {mode}": partial(speed, mode=mode) for mode in MODES},
        **{f"launches {precision}": partial(launches, precision=precision) for precision in BOTH},
        "pieces": pieces_of,
        "batch finder": budget,
        "feeding": feeding,
    }
