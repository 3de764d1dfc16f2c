"""Losses, WavLM losses and helpers give the reference trainer's numbers."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers import WavLMConfig, WavLMModel

from data.text.front_end import to_sequence
from data.text.languages import LANGUAGES
from data.text.symbols import PAD, SYMBOLS, symbol_ids
from tests.reference.goldens import REFERENCE, Reference
from trainable.learning.losses import (
    discriminator_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    wavlm_discriminator_loss,
    wavlm_feature_loss,
    wavlm_generator_loss,
)
from trainable.learning.optimizer import grad_norm
from trainable.networks.discriminators.wavlm import WavLMDiscriminator
from trainable.networks.layers.segments import (
    generate_path,
    rand_slice_segments,
    sequence_mask,
    slice_segments,
)
from trainable.networks.wavlm import WavLMFeatures

Tensors = dict[str, torch.Tensor]


def loss_outputs(inputs: Tensors) -> Tensors:
    def group(prefix: str) -> list[torch.Tensor]:
        keys = [key for key in inputs if re.fullmatch(rf"{prefix}\d+", key)]
        return [inputs[key] for key in sorted(keys, key=lambda key: int(key.removeprefix(prefix)))]

    disc, disc_r, disc_g = discriminator_loss(group("dr"), group("dg"))
    gen, gen_each = generator_loss(group("dg"))
    per_item, items_r, _ = discriminator_loss(inputs["prob_r"], inputs["prob_g"])
    assert len(items_r) == len(inputs["prob_r"])
    return {
        "feature": feature_loss([group("fr")], [group("fg")]),
        "disc": disc,
        "disc_r": torch.stack(disc_r),
        "disc_g": torch.stack(disc_g),
        "gen": gen,
        "gen_each": torch.stack(gen_each),
        "kl": kl_loss(*(inputs[key] for key in ("z_p", "logs_q", "m_p", "logs_p", "z_mask"))),
        "disc_tensor_args": per_item,
        "gen_tensor_args": generator_loss(inputs["prob_g"])[0],
    }


def check_losses(reference: Reference, name: str) -> None:
    expected = reference.tensors(name)
    outputs = loss_outputs(reference.inputs(name))
    reference.check(
        name, {key: value.reshape(expected[f"out.{key}"].shape) for key, value in outputs.items()}
    )


def wavlm_salts(reference: Reference, name: str) -> list[tuple[str, str]]:
    """Return the salts of WavLM and of its discriminator, which the manifest names in words."""
    wavlm, discriminator = re.findall(r"with salt '([^']*)'", reference.entry(name)["weights"])
    base = reference.manifest["weights_rule"]["salt"]
    candidates = [[wavlm, base + wavlm, wavlm + base], [discriminator, base + discriminator]]
    return list(dict.fromkeys(itertools.product(*candidates)))


def check_wavlm(reference: Reference, name: str) -> tuple[str, str]:
    """The salts that the file's numbers hold with."""
    mismatches = []
    for salts in wavlm_salts(reference, name):
        try:
            check_salted_wavlm(reference, name, salts)
            return salts
        except AssertionError as mismatch:
            mismatches.append(mismatch)
    raise mismatches[0]


def check_salted_wavlm(reference: Reference, name: str, salts: tuple[str, str]) -> None:
    outputs, shapes = wavlm_outputs(reference, reference.entry(name), reference.inputs(name), salts)
    assert shapes == reference.json("tiny_wavlm_names")
    reference.check(name, outputs)


def wavlm_outputs(
    reference: Reference, entry: dict[str, Any], inputs: Tensors, salts: tuple[str, str]
) -> tuple[Tensors, dict[str, list[int]]]:
    """What the WavLM losses give, and the names and shapes of WavLM's weights."""
    ctor = entry["ctor"]
    wavlm = WavLMModel(WavLMConfig(**ctor["wavlm_config"]))
    shapes = {key: list(value.shape) for key, value in wavlm.state_dict().items()}
    wd = WavLMDiscriminator(**ctor["wd"])
    for module, salt in zip((wavlm, wd), salts, strict=True):
        reference.fill(module, salt)
        module.train(entry["train_mode"])
    features = WavLMFeatures(wavlm, model_sr=ctor["model_sr"], slm_sr=ctor["slm_sr"])
    real, generated = features(inputs["wav"]), features(inputs["y_rec"])
    assert (features.num_states, features.hidden_size) == tuple(real.shape[1:3])
    outputs = {
        "resampled": features.resample(inputs["wav"]),
        "fm": wavlm_feature_loss(real, generated).reshape(1),
        "gen": wavlm_generator_loss(wd, generated).reshape(1),
        "disc": wavlm_discriminator_loss(wd, real, generated).reshape(1),
        **{f"hidden{i}": state.transpose(1, 2) for i, state in enumerate(real.unbind(1))},
    }
    return outputs, shapes


def check_commons(reference: Reference, name: str) -> None:
    """All sizes and constants are read off the outputs, which are more exact than the manifest."""
    inputs, tensors = reference.inputs(name), reference.tensors(name)
    expected = {
        key.removeprefix("out."): value for key, value in tensors.items() if key.startswith("out.")
    }
    with reference.noise() as noise:
        outputs = segment_outputs(
            inputs,
            slice_size=expected["slice"].shape[2],
            rand_size=expected["rand_slice"].shape[2],
            mask_width=expected["seq_mask"].shape[1],
            frames=expected["path"].shape[2],
        )
    assert noise.draws == reference.entry(name)["noise_draws"]
    for prefix in {key.partition(".")[0] for key in expected if key.startswith("clip_")}:
        clipped = [value for key, value in expected.items() if key.startswith(f"{prefix}.grad")]
        largest = max(float(gradient.abs().max()) for gradient in clipped)
        outputs |= clipped_gradients(prefix, inputs, None if prefix == "clip_none" else largest)
    outputs["intersperse"] = interspersed(expected["intersperse"])
    reference.check(
        name, {key: value.reshape(expected[key].shape) for key, value in outputs.items()}
    )


def segment_outputs(
    inputs: Tensors, slice_size: int, rand_size: int, mask_width: int, frames: int
) -> Tensors:
    rand_slice, rand_ids = rand_slice_segments(inputs["x"], inputs["x_lengths"], rand_size)
    duration = inputs["dur"]
    x_mask = sequence_mask(inputs["x_lengths_txt"], duration.size(2)).unsqueeze(1).float()
    y_mask = sequence_mask(duration.sum([1, 2]).long(), frames).unsqueeze(1).float()
    return {
        "slice": slice_segments(inputs["x"], inputs["ids"], slice_size),
        "rand_slice": rand_slice,
        "rand_ids": rand_ids,
        "seq_mask": sequence_mask(inputs["x_lengths"], mask_width).to(torch.uint8),
        "path": generate_path(duration, x_mask.unsqueeze(2) * y_mask.unsqueeze(3)),
    }


def interspersed(expected: torch.Tensor) -> torch.Tensor:
    """Return what the front end makes of as many phones, in the reference's numbers."""
    numbers, blank = expected[1::2].tolist(), int(expected[0])
    phones = [symbol for symbol in SYMBOLS if symbol != PAD][: len(numbers)]
    ids = symbol_ids()
    meaning = {ids[PAD]: blank} | {ids[p]: n for p, n in zip(phones, numbers, strict=True)}
    made, _, _ = to_sequence(phones, [0] * len(phones), next(iter(LANGUAGES)))
    return torch.tensor([meaning[symbol] for symbol in made.tolist()])


def clipped_gradients(prefix: str, inputs: Tensors, value: float | None) -> Tensors:
    """Norm and gradients for a clip value, with one parameter that has no gradient.

    The norm is ours. The reference clamps the gradients behind it where it has a value, and its
    training has none.
    """
    gradients = {key: inputs[key].clone() for key in inputs if key.startswith("grad")}
    parameters = [nn.Parameter(torch.zeros(1))]
    for gradient in gradients.values():
        parameters.append(nn.Parameter(torch.zeros_like(gradient)))
        parameters[-1].grad = gradient
    norm, limit = grad_norm(parameters), math.inf if value is None else value
    return {f"{prefix}.norm": norm} | {
        f"{prefix}.{key}": g.clamp(-limit, limit) for key, g in gradients.items()
    }


@pytest.mark.parametrize("name", REFERENCE.names("losses"))
def test_losses(name):
    check_losses(REFERENCE, name)


@pytest.mark.parametrize("name", REFERENCE.names("wavlm_loss"))
def test_wavlm_losses(name):
    check_wavlm(REFERENCE, name)


@pytest.mark.parametrize("name", REFERENCE.names("commons"))
def test_commons(name):
    check_commons(REFERENCE, name)


def test_norm_without_gradients_is_zero():
    assert grad_norm([nn.Parameter(torch.zeros(1))]) == 0


@pytest.mark.parametrize("loss", [discriminator_loss, feature_loss])
def test_lists_of_different_length_are_refused(loss):
    with pytest.raises(ValueError, match="shorter"):
        loss([torch.zeros(1), torch.zeros(1)], [torch.zeros(1)])
