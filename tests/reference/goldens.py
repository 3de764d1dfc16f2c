"""The reference numbers, and comparisons with them; the manifest gives shapes and constants."""

import json
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.reference.rule import Noise, fill

ASSETS = Path(__file__).parent / "assets"
REFERENCE_DIR = Path(os.environ.get("REFERENCE_DIR") or ASSETS)
GPUS = [pytest.param("cuda", marks=pytest.mark.cuda)] if torch.cuda.is_available() else []


def assert_close(label: str, actual: Tensor, expected: Tensor, atol: float, rtol: float) -> None:
    """|actual - expected| <= atol + rtol * |expected|, in float64; a NaN fails."""
    assert tuple(actual.shape) == tuple(expected.shape), f"{label}: shape {tuple(actual.shape)}"
    actual, expected = actual.detach().double(), expected.double()
    excess = (actual - expected).abs() - (atol + rtol * expected.abs())
    assert bool((excess <= 0).all()), (
        f"{label}: beyond the tolerance by {float(excess.max()):.3g} (atol {atol:.3g})"
    )


@dataclass(frozen=True)
class Reference:
    """A folder of reference numbers (it holds networks/ and text/)."""

    root: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.root / "networks" / "manifest.json").read_text(encoding="utf-8"))

    def names(self, prefix: str = "", suffix: str = ".safetensors") -> list[str]:
        """Names of the data files, without their suffix."""
        files = self.manifest["files"]
        return [
            file.removesuffix(suffix)
            for file in files
            if file.startswith(prefix) and file.endswith(suffix)
        ]

    def entry(self, name: str) -> dict[str, Any]:
        return self.manifest["files"][f"{name}.safetensors"]

    def holds(self, name: str) -> bool:
        """Whether the set has the JSON file of that name."""
        return (self.root / "networks" / f"{name}.json").is_file()

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.root / "networks" / f"{name}.json").read_text(encoding="utf-8"))

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.root / "networks" / f"{name}.safetensors")

    def inputs(self, name: str) -> dict[str, Tensor]:
        source = self.entry(name).get("inputs_from", name).removesuffix(".safetensors")
        tensors = self.tensors(source)
        return {key: tensors[f"in.{key}"] for key in self.entry(name)["inputs"]}

    def noise(self) -> Noise:
        return Noise.of(self.manifest["noise"])

    def fill(self, module: nn.Module, salt: str | None = None) -> None:
        """Fills the weights by the rule, and switches dropout off."""
        fill(module, self.manifest["weights_rule"]["salt"] if salt is None else salt)
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0

    def check(self, name: str, actual: dict[str, Tensor]) -> None:
        """Compare all outputs of a file: those listed as `exact` exactly, all within tolerance."""
        entry, tensors = self.entry(name), self.tensors(name)
        assert set(actual) == set(entry["outputs"]), set(actual) ^ set(entry["outputs"])
        for key, value in actual.items():
            expected = tensors[f"out.{key}"]
            tolerance = entry["tolerance"]
            atol = tolerance["atol_per_output"][key]["atol"]
            assert_close(f"{name} {key}", value, expected, atol, tolerance["rtol"])
            if any(fnmatch(key, pattern) for pattern in entry["exact"]):
                assert torch.equal(value.to(expected.dtype), expected), (
                    f"{name} {key} is not exactly equal"
                )


OWN = Reference(ASSETS)  # the project's copy, whatever set is tested
REFERENCE = OWN if REFERENCE_DIR == ASSETS else Reference(REFERENCE_DIR)
