"""Three whole training steps give the reference trainer's losses, gradients and parameters."""

import math
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from data.collate import TtsBatch
from data.config import DataConfig
from data.epoch_plan import Position
from tests.reference.goldens import REFERENCE, Reference
from tests.reference.rule import Noise
from tests.reference.test_losses import check_salted_wavlm, wavlm_salts
from trainable.config import LossWeights, ModelConfig, SlmConfig, TrainConfig
from trainable.losses import WavLMFeatures
from trainable.state import TrainState, build_networks
from trainable.step import TrainingStep

FILE = REFERENCE.json("train_steps")
STEPS = range(len(FILE["steps"]))
Reduction = Literal["fast", "exact"]
COMPARABLE = 1e-3  # spread of the reference's own runs, up to which a parameter is compared (see the manifest)
ROUNDING = 2e-6  # relative; the spread that the reference's few runs happened to show may be smaller than fp32 resolves
LOSS_RTOL = (1e-5, 2e-4, 1e-3)  # of each step; from the manifest, as the next
GRAD_NORM_RTOL = (2e-3, 1e-2)
KINKS = 0.005  # share of gradients after step 0 that may differ: rounding can push a value over a ReLU's kink

Numbers = dict[str, dict[str, list[float]]]  # network -> parameter -> its sums


@dataclass
class GoldenBatch(TtsBatch):
    """A batch whose BERT features stand phone by phone, as the reference's collate gives them."""

    dense: tuple[Tensor, Tensor, Tensor] = field(default=(torch.empty(0),) * 3)  # [B, bert_channels, T] each

    def bert_features(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.dense


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


def configs(file: dict[str, Any], reduction: Reduction) -> tuple[ModelConfig, TrainConfig, DataConfig]:
    sizes, train, synthesizer = file["config"], file["train"], REFERENCE.entry("synthesizer_forward")["ctor"]
    model = ModelConfig(
        n_speakers=sizes["speakers"],
        gin_channels=sizes["gin"],
        inter_channels=sizes["inter"],
        hidden_channels=sizes["hidden"],
        filter_channels=sizes["filter"],
        n_heads=sizes["heads"],
        n_layers=sizes["layers"],
        n_layers_trans_flow=sizes["tf_layers"],
        n_flow_layer=sizes["n_flow"],
        kernel_size=sizes["kernel"],
        resblock=sizes["resblock"],
        resblock_kernel_sizes=sizes["rk"],
        resblock_dilation_sizes=sizes["rd"],
        upsample_rates=sizes["up"],
        upsample_initial_channel=sizes["uic"],
        upsample_kernel_sizes=sizes["uk"],
        mas_noise_scale_initial=synthesizer["mas_noise_scale_initial"],
        noise_scale_delta=synthesizer["noise_scale_delta"],
        slm=SlmConfig(initial_channel=file["wd"]["initial_channel"]),
    )
    weights = LossWeights(mel=train["c_mel"], kl=train["c_kl"])
    keys = ("learning_rate", "betas", "eps", "segment_size")
    return (
        model,
        TrainConfig(reduction=reduction, loss_weights=weights, **{key: train[key] for key in keys}),
        DataConfig(transcript="", shards="", **file["data"]),
    )


def batch(reference: Reference, number: int, data: DataConfig) -> GoldenBatch:
    tensors = reference.tensors("train_batches")
    own = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"b{number}.")}
    fields = ("x", "x_lengths", "tone", "language", "y", "y_lengths", "spec_lengths", "speakers")
    made = GoldenBatch(
        rows=torch.arange(len(own["x"])),
        bert=torch.empty(0),
        token_index=torch.empty(0),
        dense=(own["bert"], own["ja_bert"], own["en_bert"]),
        **{key: own[key] for key in fields},
    )
    made.with_spectrogram(data)
    assert made.spec is not None
    assert sums(made.spec)[:2] == pytest.approx(own["spec_checksum"].tolist(), rel=1e-6)
    return made


def sums(tensor: Tensor, start: Tensor | None = None) -> list[float]:
    """Sum, L2 norm and, where it has a start, the sum of the distances from there; in float64."""
    tensor = tensor.detach().double()
    moved = [] if start is None else [(tensor - start.double()).abs().sum().item()]
    return [tensor.sum().item(), tensor.norm().item(), *moved]


def wavlm_salt(reference: Reference) -> str:
    """The salt of WavLM that the WavLM losses hold with: the manifest names it in words."""
    name = "wavlm_loss"
    candidates = wavlm_salts(reference, name)
    for salts in candidates[:-1]:
        try:
            check_salted_wavlm(reference, name, salts)
        except AssertionError:
            continue
        return salts[0]
    return candidates[-1][0]


def build(reference: Reference, file: dict[str, Any], reduction: Reduction) -> tuple[TrainState, DataConfig]:
    model, train, data = configs(file, reduction)
    slm = WavLMFeatures(WavLMModel(WavLMConfig(**file["wavlm_config"])), data.sampling_rate, model.slm.sampling_rate)
    reference.fill(slm.wavlm, wavlm_salt(reference))
    nets = build_networks(model, train, data, slm)
    for net in nets.values():
        reference.fill(net, file["salt"])
    state = TrainState(nets, slm, model, train, Position(step=file["start_global_step"]))
    return state, data


@cache
def trained(reduction: Reduction) -> list[Trace]:
    """Trains the file's steps, and keeps what they leave behind."""
    state, data = build(REFERENCE, FILE, reduction)
    step = TrainingStep(state, state.train, data)
    start = {name: {key: p.detach().clone() for key, p in net.named_parameters()} for name, net in state.nets.items()}
    numel = {name: {key: p.numel() for key, p in own.items()} for name, own in start.items()}
    grads: Numbers = {}
    for name, optimizer in state.optimizers.items():
        optimizer.register_step_pre_hook(partial(note_gradients, grads, name, state.nets[name]))
    traces = []
    for number in STEPS:
        with Noise(**FILE["noise"]) as noise:
            report = step([(0, batch(REFERENCE, number, data))])
        scalars = {tag: value.item() for tag, value in report.scalars.items()}
        rates = {optimizer.param_groups[0]["lr"] for optimizer in state.optimizers.values()}
        scalars["learning_rate"] = rates.pop() if len(rates) == 1 else math.nan
        params = {
            name: {key: sums(p, start[name][key]) for key, p in net.named_parameters()}
            for name, net in state.nets.items()
        }
        scale: Any = state.nets["g"].current_mas_noise_scale
        traces.append(Trace(scalars, noise.draws, scale, list(grads), dict(grads), params, numel))
        grads.clear()
        state.position = Position(step=state.position.step + 1)
    return traces


def note_gradients(grads: Numbers, name: str, net: nn.Module, *_: Any) -> None:
    grads[name] = {key: sums(p.grad) for key, p in net.named_parameters() if p.grad is not None}


def comparable(number: int) -> list[tuple[str, str, dict[str, float]]]:
    """(network, parameter, observed spread) of those that the reference's own runs agree on."""
    observed = FILE["steps"][number]["observed"]
    found = [
        (name, key, spread)
        for name, parameters in observed.items()
        for key, spread in parameters.items()
        if spread["grad_norm_rel"] < COMPARABLE
    ]
    share = len(found) / sum(map(len, observed.values()))
    assert share > (0.9 if number == 0 else 0.6), share  # rounding grows from step to step
    return found


every_step = pytest.mark.parametrize("number", STEPS)
every_reduction = pytest.mark.parametrize("reduction", get_args(Reduction))


@every_reduction
@every_step
def test_scalars(number, reduction):
    trace, expected = trained(reduction)[number], FILE["steps"][number]
    scalars = {tag: value for tag, value in trace.scalars.items() if not unused(tag, value)}
    assert set(scalars) == set(expected["scalars"])
    for tag, value in expected["scalars"].items():
        by_step = GRAD_NORM_RTOL if tag.startswith("grad_norm_") else LOSS_RTOL
        rtol = by_step[min(number, len(by_step) - 1)]
        rtol = max(rtol, 10 * expected["scalar_observed_rel_error"][tag])
        assert scalars[tag] == pytest.approx(value, rel=rtol, abs=0), tag


def unused(tag: str, value: float) -> bool:
    """Whether it is the loss of an utterance that the batch does not have."""
    return math.isnan(value) and tag.startswith(("loss/dur_disc_r/", "loss/dur_disc_g/", "loss/g/dur_gen_"))


@every_reduction
@every_step
def test_gradients(number, reduction):
    grads, expected = trained(reduction)[number].grads, FILE["steps"][number]["grads"]
    assert {name: set(parameters) for name, parameters in grads.items()} == {
        name: {key for key, value in parameters.items() if value is not None} for name, parameters in expected.items()
    }
    numel, beyond, compared = trained(reduction)[number].numel, [], comparable(number)
    for name, key, spread in compared:
        (total, norm), (expected_total, expected_norm) = grads[name][key], expected[name][key]
        atol = (10 * spread["grad_norm_rel"] + ROUNDING) * expected_norm
        # The manifest names no tolerance for the sum. By Cauchy-Schwarz it moves by no more than the root of the count
        # times the norm of the difference, and the latter is more than the difference of the norms.
        atol_sum = 10 * math.sqrt(numel[name][key]) * atol
        if not (abs(norm - expected_norm) <= atol and abs(total - expected_total) <= atol_sum):
            beyond.append((name, key, norm, expected_norm, total, expected_total))
    assert len(beyond) <= (KINKS * len(compared) if number else 0), beyond


@every_reduction
@every_step
def test_parameters(number, reduction):
    params, expected = trained(reduction)[number].params, FILE["steps"][number]["params"]
    assert {name: set(own) for name, own in params.items()} == {name: set(own) for name, own in expected.items()}
    numel = trained(reduction)[number].numel
    for name, key, spread in comparable(number):
        atol = 10 * spread["param_sum_abs"] + 1e-6 * numel[name][key]
        assert params[name][key] == pytest.approx(expected[name][key], rel=0, abs=atol), (name, key)


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
