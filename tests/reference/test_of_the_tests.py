"""A perturbed reference number makes its check fail: the checks do compare."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.reference import test_alignment, test_bucket_sampler, test_networks, test_training_steps
from tests.reference.goldens import REFERENCE, Reference
from tests.reference.runners import check_network, runner_of
from tests.reference.test_losses import check_commons, check_losses, check_wavlm
from tests.reference.test_mels import check_mels

CHECKS = {"losses": check_losses, "wavlm_loss": check_wavlm, "commons": check_commons, "mel_processing": check_mels}
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


@pytest.mark.parametrize("name", [*NETWORKS, *CHECKS])
def test_a_perturbed_output_fails(name, tmp_path):
    reference = copy_of(name, tmp_path)
    key = next(iter(REFERENCE.entry(name)["outputs"]))
    perturb(reference, name, "out", key, shifted)
    with pytest.raises(AssertionError, match=r"tolerance|exactly"):
        CHECKS.get(name, check_network)(reference, name)


@pytest.mark.parametrize("kind", ["normal", "salt", "draws"])
def test_other_noise_salt_or_draws_fail(kind, tmp_path):
    """The tests follow the manifest: with its noise or salt changed, the numbers are no longer met."""
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


@pytest.mark.parametrize("kind", ["scalars", "gradients", "parameters", "draws_per_step", "mas_noise_scale"])
def test_a_perturbed_training_step_fails(kind, monkeypatch):
    number, reduction = test_training_steps.STEPS[-1], "fast"
    test_training_steps.trained(reduction)  # from the file as it is
    monkeypatch.setattr(test_training_steps, "NUDGES", 1)  # enough to see that it does not explain the difference
    file = copy.deepcopy(test_training_steps.FILE)
    monkeypatch.setattr(test_training_steps, "FILE", file)
    name, key, _ = test_training_steps.comparable(number)[0]
    step, order = file["steps"][number], test_training_steps.test_order_draws_and_alignment_noise
    check = getattr(test_training_steps, f"test_{kind}", order)
    check(number, reduction)
    match kind:
        case "scalars":
            step["scalars"]["loss/g/total"] *= 2
        case "gradients":
            step["grads"][name][key][1] *= 3
        case "parameters":
            step["params"][name][key][0] += 10 + step["params"][name][key][1]
        case "draws_per_step":
            step["draws_per_step"].pop()
        case "mas_noise_scale":
            step["mas_noise_scale"] *= 1.001
    with pytest.raises(AssertionError):
        check(number, reduction)


def test_nan_fails(tmp_path):
    name = NETWORKS[0]
    reference = copy_of(name, tmp_path)
    key = next(iter(REFERENCE.entry(name)["outputs"]))
    perturb(reference, name, "out", key, lambda tensor: torch.full_like(tensor, float("nan")))
    with pytest.raises(AssertionError):
        check_network(reference, name)
