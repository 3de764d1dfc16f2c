"""A perturbed reference number makes its check fail: the checks do compare."""

import copy
import json
import shutil
from dataclasses import replace
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reference import (
    double,
    test_alignment,
    test_bucket_sampler,
    test_networks,
    test_training_steps,
)
from tests.reference.goldens import REFERENCE, Reference
from tests.reference.runners import check_network, runner_of
from tests.reference.test_losses import check_commons, check_losses, check_wavlm
from tests.reference.test_mels import check_mels
from tests.reference.training import build, sums
from trainable.learning.step import TrainingStep

BESIDE = test_training_steps.__file__  # whose steps are taken once for both
CHECKS = {
    "losses": check_losses,
    "wavlm_loss": check_wavlm,
    "commons": check_commons,
    "mel_processing": check_mels,
}
NETWORKS = [name for name in REFERENCE.names() if runner_of(name)]


def copy_of(name, folder):
    """A folder with the manifest and the files that the check of `name` reads."""
    networks = folder / "networks"
    networks.mkdir()
    source = REFERENCE.entry(name).get("inputs_from", f"{name}.safetensors")
    for file in {"manifest.json", "tiny_wavlm_names.json", f"{name}.safetensors", source}:
        shutil.copy(REFERENCE.root / "networks" / file, networks / file)
    return Reference(folder)


def perturb(reference, name, kind, key, change):
    path = reference.root / "networks" / f"{name}.safetensors"
    tensors = load_file(path)
    tensors[f"{kind}.{key}"] = change(tensors[f"{kind}.{key}"])
    save_file(tensors, path)


def shifted(tensor):
    """One value off by a little more than fits any tolerance; a bit turned over."""
    changed = tensor.clone().flatten()
    if changed.is_floating_point():
        changed[-1] += 0.01 * (1 + changed[-1].abs())
    else:
        changed[-1] = changed[-1] + 1 if changed[-1] == 0 else changed[-1] - 1
    return changed.reshape(tensor.shape)


@pytest.mark.medium
@pytest.mark.parametrize("name", [*NETWORKS, *CHECKS])
def test_a_perturbed_output_fails(name, tmp_path):
    reference = copy_of(name, tmp_path)
    key = next(iter(REFERENCE.entry(name)["outputs"]))
    perturb(reference, name, "out", key, shifted)
    with pytest.raises(AssertionError, match=r"tolerance|exactly"):
        CHECKS.get(name, check_network)(reference, name)


@pytest.mark.parametrize("kind", ["normal", "salt", "draws"])
def test_other_noise_salt_or_draws_fail(kind, tmp_path):
    """The tests follow the manifest: with other noise or salt, the numbers differ."""
    name = next(name for name in NETWORKS if name.startswith("stochastic_duration_predictor"))
    reference = copy_of(name, tmp_path)
    manifest = json.loads(json.dumps(reference.manifest))
    if kind == "normal":
        manifest["noise"]["phase"] += 0.5
    elif kind == "salt":
        manifest["weights_rule"]["salt"] += "x"
    else:
        manifest["files"][f"{name}.safetensors"]["noise_draws"].pop()
    (tmp_path / "networks" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(AssertionError):
        check_network(Reference(tmp_path), name)


def test_a_perturbed_path_fails():
    case = test_alignment.CASES[-1]
    tensors = REFERENCE.tensors(test_alignment.NAME)
    tensors[f"{case}.path"] = shifted(tensors[f"{case}.path"])
    with pytest.raises(AssertionError):
        test_alignment.test_path(tensors, case, "cpu")


def test_a_perturbed_batch_of_the_sampler_fails(monkeypatch):
    file = copy.deepcopy(test_bucket_sampler.FILE)
    case = next(case for case in file["cases"] if not case["error"] and case["batches"])
    case["batches"][0][0] += 1
    monkeypatch.setattr(test_bucket_sampler, "FILE", file)
    with pytest.raises(AssertionError):
        test_bucket_sampler.test_batches(case["lengths"])


def test_a_perturbed_shape_or_order_of_a_state_dict_fails(monkeypatch):
    case, names = min(test_networks.NAMES.items(), key=lambda item: len(item[1]))
    (first, shape), *others = names.items()
    for changed in ({first: [*shape, 1], **dict(others)}, {**dict(others), first: shape}):
        monkeypatch.setattr(test_networks, "NAMES", {case: changed})
        with pytest.raises(AssertionError):
            test_networks.test_state_dict(case)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("scalars", 0),
        ("scalars", -1),
        ("gradients", 0),
        ("parameters", 0),
        ("draws_per_step", -1),
        ("mas_noise_scale", -1),
    ],
)
def test_a_perturbed_training_step_fails(kind, number, monkeypatch):
    number, reduction = test_training_steps.STEPS[number], "fast"
    test_training_steps.trained(reduction)  # from the file as it is
    file = copy.deepcopy(test_training_steps.FILE)
    monkeypatch.setattr(test_training_steps, "FILE", file)
    step, order = file["steps"][number], test_training_steps.test_order_draws_and_alignment_noise
    name, key, _ = test_training_steps.comparable(step)[0]
    check = getattr(test_training_steps, f"test_{kind}", order)
    arguments = (reduction,) if kind in ("gradients", "parameters") else (number, reduction)
    match kind:
        case "scalars":
            step["scalars"]["loss/g/total"] *= 1.01
        case "gradients":
            step["grads"][name][key][1] *= 1.01
        case "parameters":
            step["params"][name][key][2] *= 1.01
        case "draws_per_step":
            step["draws_per_step"].pop()
        case "mas_noise_scale":
            step["mas_noise_scale"] *= 1.001
    with pytest.raises(AssertionError):
        check(*arguments)


@pytest.mark.medium
@test_training_steps.needs_double
@pytest.mark.parametrize("kind", get_args(double.Kind))
def test_a_perturbed_number_in_double_fails(kind, monkeypatch):
    test_training_steps.doubled()  # from the file as it is
    file = copy.deepcopy(test_training_steps.DOUBLE)
    monkeypatch.setattr(test_training_steps, "DOUBLE", file)
    number = len(file["steps"]) - 1
    step = file["steps"][number]
    own = step["zero_gradient"]["g"]
    key = own[0] if kind == "zero_gradient" else next(k for k in step["grads"]["g"] if k not in own)
    match kind:
        case "scalars":
            step["scalars"]["loss/g/total"] *= 1 + 1e-8
        case "gradients":
            step["grads"]["g"][key][0] += 1e-8 * step["grads"]["g"][key][1]
        case "parameters":
            step["params"]["g"][key][0] += 1e-8 * step["params"]["g"][key][2]
        case "zero_gradient":
            step["params"]["g"][key][0] += 1e-6
    with pytest.raises(AssertionError):
        test_training_steps.test_double(number, kind)


@pytest.mark.medium
@test_training_steps.needs_double
@pytest.mark.parametrize("factor", [1, 1.001])
def test_an_epsilon_that_is_off_by_a_thousandth_fails(factor):
    """AdamW's: parameters of the first step are beyond their bounds; from the gradients it had."""
    file = copy.deepcopy(test_training_steps.DOUBLE)
    file["train"]["eps"] *= factor
    steps, gradients = test_training_steps.doubled_with_gradients()
    state, data = build(REFERENCE, file, "fast", torch.float64)
    own = dict(state.nets["g"].named_parameters())
    start = {key: p.detach().clone() for key, p in own.items()}
    for key, gradient in gradients.items():
        own[key].grad = gradient.clone()
    state.prepare_step()
    TrainingStep(state, state.train, data).update("g")
    trace = replace(steps[0], params={"g": {key: sums(p, start[key]) for key, p in own.items()}})

    step = file["steps"][0] | {"params": {"g": file["steps"][0]["params"]["g"]}}
    beyond = [distance for distance in double.distances(trace, step) if distance.beyond]
    print(len(beyond), "numbers are beyond their bounds")
    changed = sum(distance.kind == "parameters" for distance in beyond)
    assert changed > 10 if factor != 1 else not beyond


def test_nan_fails(tmp_path):
    name = NETWORKS[0]
    reference = copy_of(name, tmp_path)
    key = next(iter(REFERENCE.entry(name)["outputs"]))
    perturb(reference, name, "out", key, lambda tensor: torch.full_like(tensor, float("nan")))
    with pytest.raises(AssertionError):
        check_network(reference, name)
