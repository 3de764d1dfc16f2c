"""How each file of reference numbers is computed with our networks."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from data.stream.inputs import TextInputs
from tests.reference.goldens import Reference
from tests.trainable.networks.tiny import with_hifigan
from trainable.networks.discriminators.duration import DurationDiscriminator
from trainable.networks.discriminators.period import MultiPeriodDiscriminator
from trainable.networks.discriminators.wavlm import WavLMDiscriminator
from trainable.networks.generator.decoder import Generator
from trainable.networks.generator.duration import DurationPredictor, StochasticDurationPredictor
from trainable.networks.generator.flows import ResidualCouplingBlock, TransformerCouplingBlock
from trainable.networks.generator.posterior_encoder import PosteriorEncoder
from trainable.networks.generator.reference_encoder import ReferenceEncoder
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.networks.generator.text_encoder import TextEncoder

Tensors = dict[str, Tensor]


def text_inputs(inputs: Tensors) -> tuple[TextInputs, Tensors]:
    """Our text inputs of the reference's arguments, and the arguments that are none of these."""
    rest = dict(inputs)
    bert = tuple(rest.pop(name) for name in ("bert", "ja_bert", "en_bert"))
    text = {name: rest.pop(name) for name in ("x", "x_lengths", "tone", "language")}
    return TextInputs(**text, bert=bert, sid=rest.pop("sid", None)), rest


def text_encoder(net: TextEncoder, inputs: Tensors, _: dict[str, Any]) -> Tensors:
    text, rest = text_inputs(inputs)
    return dict(zip(("x", "m", "logs", "x_mask"), net(text, **rest), strict=True))


def posterior_encoder(net: PosteriorEncoder, inputs: Tensors, _: dict[str, Any]) -> Tensors:
    return dict(zip(("z", "m", "logs", "x_mask"), net(**inputs), strict=True))


def coupling_block(
    net: TransformerCouplingBlock | ResidualCouplingBlock, inputs: Tensors, _: dict[str, Any]
) -> Tensors:
    return {"fwd": net(**inputs), "rev": net(**inputs, reverse=True)}


def stochastic_duration_predictor(
    net: StochasticDurationPredictor, inputs: Tensors, entry: dict[str, Any]
) -> Tensors:
    outputs = {"fwd": net(**inputs)}
    given = {key: value for key, value in inputs.items() if key != "w"}
    for key in entry["outputs"]:  # rev draws with noise_scale 1, rev_08 with 0.8
        if key.startswith("rev"):
            digits = key.partition("_")[2] or "10"
            outputs[key] = net(
                **given, reverse=True, noise_scale=float(f"{digits[0]}.{digits[1:]}")
            )
    return outputs


def one_output(net: torch.nn.Module, inputs: Tensors, entry: dict[str, Any]) -> Tensors:
    (key,) = entry["outputs"]
    return {key: net(**inputs)}


def synthesizer_forward(net: SynthesizerTrn, inputs: Tensors, entry: dict[str, Any]) -> Tensors:
    text, rest = text_inputs(inputs)
    return net(text, **rest)._asdict()


def synthesizer_infer(net: SynthesizerTrn, inputs: Tensors, entry: dict[str, Any]) -> Tensors:
    """Speaks once for each `name.* (setting value, ...)` in the manifest's description."""
    text, rest = text_inputs(inputs)
    outputs = {}
    for prefix, settings in re.findall(r"(\w+)\.\* \(([^)]*)\)", entry["what"]):
        values = re.findall(r"(\w+)[ =]([\d.]+)", settings)
        options = {key: int(value) if key == "max_len" else float(value) for key, value in values}
        spoken = net.infer(text, y=rest["y"], **options)
        outputs |= {f"{prefix}.{key}": value for key, value in spoken._asdict().items()}
    return outputs


def duration_discriminator(
    net: DurationDiscriminator, inputs: Tensors, _: dict[str, Any]
) -> Tensors:
    return dict(zip(("prob_r", "prob_g"), net(**inputs), strict=True))


def multi_period_discriminator(
    net: MultiPeriodDiscriminator, inputs: Tensors, _: dict[str, Any]
) -> Tensors:
    logits_r, logits_g, fmaps_r, fmaps_g = net(**inputs)
    outputs = {}
    for side, logits, fmaps in (("r", logits_r, fmaps_r), ("g", logits_g, fmaps_g)):
        for k, (logit, fmap) in enumerate(zip(logits, fmaps, strict=True)):
            outputs[f"d{k}.{side}"] = logit
            for j, feature in enumerate(fmap):
                flat = feature.flatten()
                name, middle = f"d{k}.f{side}{j}", flat.numel() // 2
                size = flat.abs()
                outputs[f"{name}.stat"] = torch.stack(
                    [flat.mean(), size.mean(), size.max(), torch.tensor(float(flat.numel()))]
                )
                outputs[f"{name}.head"] = flat[:64]
                outputs[f"{name}.mid"] = flat[middle : middle + 64]
    return outputs


# the beginning of a file's name -> the network, and what to do with it
RUNNERS: dict[str, tuple[Callable[..., torch.nn.Module], Callable[..., Tensors]]] = {
    "text_encoder": (TextEncoder, text_encoder),
    "posterior_encoder": (PosteriorEncoder, posterior_encoder),
    "transformer_coupling_block": (TransformerCouplingBlock, coupling_block),
    "residual_coupling_block": (ResidualCouplingBlock, coupling_block),
    "stochastic_duration_predictor": (StochasticDurationPredictor, stochastic_duration_predictor),
    "duration_predictor": (DurationPredictor, one_output),
    "generator": (Generator, one_output),
    "reference_encoder": (ReferenceEncoder, one_output),
    "synthesizer_forward": (with_hifigan, synthesizer_forward),
    "synthesizer_infer": (with_hifigan, synthesizer_infer),
    "duration_discriminator": (DurationDiscriminator, duration_discriminator),
    "multi_period_discriminator": (MultiPeriodDiscriminator, multi_period_discriminator),
    "wavlm_discriminator": (WavLMDiscriminator, one_output),
}


def runner_of(name: str) -> str | None:
    """The key of RUNNERS for a data file."""
    return next((key for key in RUNNERS if name.startswith(key)), None)


def check_network(reference: Reference, name: str) -> None:
    """Compute a file's outputs with our network; compare them and the draws with the reference."""
    key = runner_of(name)
    assert key is not None
    network, run = RUNNERS[key]
    entry = reference.entry(name)
    net = network(**entry["ctor"])
    reference.fill(net)
    net.train(entry["train_mode"])
    with torch.no_grad(), reference.noise() as noise:
        outputs = run(net, reference.inputs(name), entry)
    reference.check(name, outputs)
    assert noise.draws == entry["noise_draws"]
