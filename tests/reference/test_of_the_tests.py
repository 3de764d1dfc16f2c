"""A perturbed reference number makes its check fail: the checks do compare."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    """One value off by a little more than fits any tolerance."""
    changed = tensor.clone().flatten()
    changed[-1] += 0.01 * (1 + changed[-1].abs()) if changed.is_floating_point() else 1
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


def test_nan_fails(tmp_path):
    name = NETWORKS[0]
    reference = copy_of(name, tmp_path)
    key = next(iter(REFERENCE.entry(name)["outputs"]))
    perturb(reference, name, "out", key, lambda tensor: torch.full_like(tensor, float("nan")))
    with pytest.raises(AssertionError):
        check_network(reference, name)
