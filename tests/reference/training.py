"""The reference's training steps, run with our networks."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from data.config import DataConfig
from data.plan.epoch_plan import Position
from data.stream.collate import TtsBatch
from tests.reference.goldens import Reference
from tests.reference.rule import Noise
from tests.reference.test_losses import check_wavlm
from trainable.config import LossWeights, TrainConfig
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.model_config import ModelConfig, SlmConfig
from trainable.networks.registry import LOGGED_ITEMS
from trainable.networks.wavlm import WavLMFeatures

Reduction = Literal["fast", "exact"]
Numbers = dict[str, dict[str, list[float]]]  # network -> parameter -> its sums
PIECE = 2**16  # numbers that are summed at once: they stay in the processor's cache


@dataclass
class GoldenBatch(TtsBatch):
    """A batch whose BERT features stand phone by phone, as the reference's collate gives them."""

    # [B, bert_channels, T] each
    dense: tuple[Tensor, ...] = ()

    def bert_features(self) -> tuple[Tensor, ...]:
        return self.dense

    def to(self, device: torch.device) -> "GoldenBatch":
        return replace(super().to(device), dense=tuple(own.to(device) for own in self.dense))


@dataclass
class Trace:
    """What a training step left behind."""

    scalars: dict[str, float]
    draws: list[list[Any]]
    mas_noise_scale: float
    order: list[str]  # of the networks' optimizers
    grads: Numbers  # [sum, L2] at the optimizer's step
    params: Numbers  # [sum, L2, sum of the distances from the first step's start] after the step
    numel: dict[str, dict[str, int]]
    spectrogram: list[float]  # [sum, L2] of the batch's


def configs(
    reference: Reference, file: dict[str, Any], reduction: Reduction
) -> tuple[ModelConfig, TrainConfig, DataConfig]:
    """Our configuration of a file of training steps."""
    sizes, synthesizer = file["config"], reference.entry("synthesizer_forward")["ctor"]
    shared = {f.name: synthesizer[f.name] for f in fields(ModelConfig) if f.name in synthesizer}
    model = ModelConfig(
        **shared
        | {
            "n_speakers": sizes["speakers"],
            "gin_channels": sizes["gin"],
            "inter_channels": sizes["inter"],
            "hidden_channels": sizes["hidden"],
            "filter_channels": sizes["filter"],
            "n_heads": sizes["heads"],
            "n_layers": sizes["layers"],
            "n_layers_trans_flow": sizes["tf_layers"],
            "n_flow_layer": sizes["n_flow"],
            "kernel_size": sizes["kernel"],
            "resblock": sizes["resblock"],
            "resblock_kernel_sizes": sizes["rk"],
            "resblock_dilation_sizes": sizes["rd"],
            "upsample_rates": sizes["up"],
            "upsample_initial_channel": sizes["uic"],
            "upsample_kernel_sizes": sizes["uk"],
        },
        slm=SlmConfig(
            sampling_rate=reference.entry("wavlm_loss")["ctor"]["slm_sr"],
            initial_channel=file["wd"]["initial_channel"],
        ),
    )
    train = TrainConfig(
        reduction=reduction,
        loss_weights=LossWeights(mel=file["train"]["c_mel"], kl=file["train"]["c_kl"]),
        **{f.name: file["train"][f.name] for f in fields(TrainConfig) if f.name in file["train"]},
    )
    data = {f.name: file["data"][f.name] for f in fields(DataConfig) if f.name in file["data"]}
    return model, train, DataConfig(**data)


def batch(
    reference: Reference,
    number: int,
    data: DataConfig,
    dtype: torch.dtype,
) -> GoldenBatch:
    """The batch of step `number`, with its spectrogram, whose sum and norm are the reference's."""
    tensors = reference.tensors("train_batches")
    own = {
        key.partition(".")[2]: value
        for key, value in tensors.items()
        if key.startswith(f"b{number}.")
    }
    names = ("x", "x_lengths", "tone", "language", "y", "y_lengths", "spec_lengths", "speakers")
    made = GoldenBatch(
        rows=torch.arange(len(own["x"])),
        bert=torch.empty(0),
        token_index=torch.empty(0),
        dense=tuple(own[key].to(dtype) for key in ("bert", "ja_bert", "en_bert")),
        **{key: own[key] for key in names} | {"y": own["y"].to(dtype)},
    )
    made.with_spectrogram(data)
    assert made.spec is not None
    assert sums(made.spec)[:2] == pytest.approx(own["spec_checksum"].tolist(), rel=1e-6)
    return made


def utterance(tag: str) -> int:
    """The utterance of the batch whose loss it is; -1 for a loss of the whole batch."""
    prefix = ("loss/dur_disc_r/", "loss/dur_disc_g/", "loss/g/dur_gen_")
    return next((int(tag.removeprefix(p)) for p in prefix if tag.startswith(p)), -1)


def logged(step: dict[str, Any]) -> dict[str, float]:
    """The scalars of a file's step that we log too: of the first utterances only."""
    return {tag: value for tag, value in step["scalars"].items() if utterance(tag) < LOGGED_ITEMS}


def sums(tensor: Tensor, start: Tensor | None = None) -> list[float]:
    """Sum, L2 norm and, where it has a start, the sum of the distances from there; in float64."""
    found = []
    before = itertools.repeat(None) if start is None else start.flatten().split(PIECE)
    for piece, own_start in zip(tensor.detach().flatten().split(PIECE), before, strict=False):
        piece = piece.double()
        moved = [] if own_start is None else [(piece - own_start.double()).abs().sum().item()]
        found.append([piece.sum().item(), piece.norm().item(), *moved])
    totals, norms, *moved = zip(*found, strict=True)
    return [sum(totals), math.hypot(*norms), *map(sum, moved)]


def build(
    reference: Reference,
    file: dict[str, Any],
    reduction: Reduction,
    dtype: torch.dtype,
) -> tuple[TrainState, DataConfig]:
    """The state before the first step. WavLM's salt is the one that the WavLM losses hold with.

    Networks of another type have the weights of fp32, and WavLM its resampling kernel.
    """
    model, train, data = configs(reference, file, reduction)
    wavlm = WavLMModel(WavLMConfig(**file["wavlm_config"]))
    reference.fill(wavlm, check_wavlm(reference, "wavlm_loss")[0])
    # in the type of the step: its attention adds up weights when it is made
    slm = WavLMFeatures(wavlm.to(dtype), data.sampling_rate, model.slm.sampling_rate)
    nets = build_networks(model, train, data, slm)
    for net in nets.values():
        reference.fill(net, file["salt"])
    for net in (slm, *nets.values()):
        net.to(dtype)
    return TrainState(nets, slm, model, train, Position(step=file["start_global_step"])), data


def run_steps(
    reference: Reference,
    file: dict[str, Any],
    reduction: Reduction,
    *,
    dtype: torch.dtype = torch.float32,
    before: Callable[[TrainState, GoldenBatch, DataConfig], None] = lambda *_: None,
) -> Iterator[Trace]:
    """Trains the file's steps, and yields what each leaves behind.

    Args:
        reference: the set.
        file: its training steps.
        reduction: of our configuration.
        dtype: type of weights, waveforms and features; float32 or float64.
        before: is shown the state before each step, the batch and the configuration of the data.
    """
    state, data = build(reference, file, reduction, dtype)
    step = TrainingStep(state, state.train, data)
    start = {
        name: {key: p.detach().clone() for key, p in net.named_parameters()}
        for name, net in state.nets.items()
    }
    numel = {name: {key: p.numel() for key, p in own.items()} for name, own in start.items()}
    grads: Numbers = {}
    for name, optimizer in state.optimizers.items():
        optimizer.register_step_pre_hook(partial(note_gradients, grads, name, state.nets[name]))
    for number in range(len(file["steps"])):
        own = batch(reference, number, data, dtype)
        before(state, own, data)
        with Noise.of(file["noise"]) as noise:
            report = step([(0, own)])
        scalars = {tag: value.item() for tag, value in report.scalars.items()}
        rates = {optimizer.param_groups[0]["lr"] for optimizer in state.optimizers.values()}
        scalars["learning_rate"] = rates.pop() if len(rates) == 1 else math.nan
        params = {
            name: {key: sums(p, start[name][key]) for key, p in net.named_parameters()}
            for name, net in state.nets.items()
        }
        scale: Any = state.nets["g"].search.noise
        yield Trace(
            scalars,
            noise.draws,
            scale,
            list(grads),
            dict(grads),
            params,
            numel,
            sums(own.spec),
        )
        grads.clear()
        state.position = Position(step=state.position.step + 1)


def note_gradients(grads: Numbers, name: str, net: nn.Module, *_: Any) -> None:
    grads[name] = {key: sums(p.grad) for key, p in net.named_parameters() if p.grad is not None}
