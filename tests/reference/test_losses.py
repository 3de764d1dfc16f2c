"""Losses, WavLM losses and helpers give the reference trainer's numbers."""

import ast
import re

import pytest
import torch
from torch import nn
from transformers import WavLMConfig, WavLMModel

from data.config import LANGUAGES
from data.text.front_end import to_sequence
from data.text.symbols import PAD, SYMBOL_IDS, SYMBOLS
from tests.reference.goldens import REFERENCE, Reference
from trainable.gradients import clip_grad_value_
from trainable.losses import (
    WavLMFeatures,
    discriminator_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    wavlm_discriminator_loss,
    wavlm_feature_loss,
    wavlm_generator_loss,
)
from trainable.networks.segments import generate_path, rand_slice_segments, sequence_mask, slice_segments
from trainable.networks.wavlm_discriminator import WavLMDiscriminator


def check_losses(reference: Reference, name: str) -> None:
    inputs = reference.inputs(name)

    def group(prefix: str) -> list[torch.Tensor]:
        return [inputs[key] for key in sorted(inputs) if re.fullmatch(rf"{prefix}\d+", key)]

    disc, disc_r, disc_g = discriminator_loss(group("dr"), group("dg"))
    gen, gen_each = generator_loss(group("dg"))
    per_item, items_r, _ = discriminator_loss(inputs["prob_r"], inputs["prob_g"])
    assert len(items_r) == len(inputs["prob_r"])
    outputs = {
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
    reference.check(
        name, {key: value.reshape(reference.tensors(name)[f"out.{key}"].shape) for key, value in outputs.items()}
    )


def wavlm_salts(reference: Reference, name: str) -> list[tuple[str, str]]:
    """Salts of WavLM and of its discriminator: the manifest names them in words, with or without the set's own."""
    wavlm, discriminator = re.findall(r"with salt '([^']*)'", reference.entry(name)["weights"])
    base = reference.manifest["weights_rule"]["salt"]
    return list(dict.fromkeys([(wavlm, discriminator), (base + wavlm, base + discriminator)]))


def check_wavlm(reference: Reference, name: str) -> None:
    mismatches = []
    for salts in wavlm_salts(reference, name):
        try:
            return check_salted_wavlm(reference, name, salts)
        except AssertionError as mismatch:
            mismatches.append(mismatch)
    raise mismatches[0]


def check_salted_wavlm(reference: Reference, name: str, salts: tuple[str, str]) -> None:
    entry, inputs = reference.entry(name), reference.inputs(name)
    ctor = entry["ctor"]
    wavlm = WavLMModel(WavLMConfig(**ctor["wavlm_config"]))
    names = {key: list(value.shape) for key, value in wavlm.state_dict().items()}
    assert names == reference.json("tiny_wavlm_names")
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
    reference.check(name, outputs)


def check_commons(reference: Reference, name: str) -> None:
    entry, inputs, expected = reference.entry(name), reference.inputs(name), reference.tensors(name)
    size, rand_size = (expected[f"out.{key}"].shape[2] for key in ("slice", "rand_slice"))
    with reference.noise() as noise:
        rand_slice, rand_ids = rand_slice_segments(inputs["x"], inputs["x_lengths"], rand_size)
    assert noise.draws == entry["noise_draws"]
    outputs = {
        "slice": slice_segments(inputs["x"], inputs["ids"], size),
        "rand_slice": rand_slice,
        "rand_ids": rand_ids,
        "seq_mask": sequence_mask(inputs["x_lengths"], expected["out.seq_mask"].shape[1]).to(torch.uint8),
    }
    x_mask = sequence_mask(inputs["x_lengths_txt"], inputs["dur"].size(2)).unsqueeze(1).float()
    duration = inputs["dur"]
    y_mask = sequence_mask(duration.sum([1, 2]).long(), expected["out.path"].shape[2]).unsqueeze(1).float()
    outputs["path"] = generate_path(duration, x_mask.unsqueeze(2) * y_mask.unsqueeze(3))
    outputs |= clipped_gradients(entry["what"], inputs)
    outputs["intersperse"] = interspersed(entry["what"])
    outputs = {key: value.reshape(expected[f"out.{key}"].shape) for key, value in outputs.items()}
    reference.check(name, outputs)


def interspersed(description: str) -> torch.Tensor:
    """The numbers that the manifest names, taken as phones, with blanks put between them by the text front end."""
    call = re.search(r"intersperse\((\[[\d, ]+\]), ?(\d+)\)", description)
    assert call is not None
    numbers, blank = ast.literal_eval(call[1]), int(call[2])
    assert SYMBOL_IDS[PAD] == blank
    phones, _, _ = to_sequence([SYMBOLS[number] for number in numbers], [0] * len(numbers), LANGUAGES[0])
    return torch.from_numpy(phones)


def clipped_gradients(description: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Norms and gradients for the clip values that the manifest names, with one parameter that has no gradient."""
    values = re.search(r"clip_grad_value_\(params, ([\w.]+) / ([\w.]+)\)", description)
    assert values is not None
    outputs = {}
    for prefix, value in zip(("clip_none", "clip_clip"), values.groups(), strict=True):
        gradients = {key: inputs[key].clone() for key in inputs if key.startswith("grad")}
        parameters = [nn.Parameter(torch.zeros(1))]
        for gradient in gradients.values():
            parameters.append(nn.Parameter(torch.zeros_like(gradient)))
            parameters[-1].grad = gradient
        outputs[f"{prefix}.norm"] = clip_grad_value_(parameters, ast.literal_eval(value))
        outputs |= {f"{prefix}.{key}": gradient for key, gradient in gradients.items()}
    return outputs


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
    assert clip_grad_value_([nn.Parameter(torch.zeros(1))], None) == 0


@pytest.mark.parametrize("loss", [discriminator_loss, feature_loss])
def test_lists_of_different_length_are_refused(loss):
    with pytest.raises(ValueError, match="shorter"):
        loss([torch.zeros(1), torch.zeros(1)], [torch.zeros(1)])
