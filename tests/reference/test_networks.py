"""Every network gives the reference trainer's numbers, and has its state dict."""

import ast
import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from data.text.languages import PUBLISHED, count_tones
from tests.reference.goldens import OWN, REFERENCE
from tests.reference.runners import RUNNERS, check_network, runner_of
from tests.trainable.networks.tiny import with_hifigan
from trainable.networks.discriminators.duration import DurationDiscriminator
from trainable.networks.discriminators.period import MultiPeriodDiscriminator
from trainable.networks.discriminators.wavlm import WavLMDiscriminator

NAMES = REFERENCE.json("state_dict_names")
NAMES_ENTRY = REFERENCE.manifest["files"]["state_dict_names.json"]

# the published 2.3 configuration, which state_dict_names.json calls full_2.3
FULL: dict[str, tuple[Callable[..., torch.nn.Module], dict[str, Any]]] = {
    "SynthesizerTrn": (
        with_hifigan,
        {
            "n_vocab": NAMES_ENTRY["symbols"],
            "spec_channels": 1025,
            "segment_size": 32,
            "inter_channels": 192,
            "hidden_channels": 192,
            "filter_channels": 768,
            "n_heads": 2,
            "n_layers": 6,
            "kernel_size": 3,
            "p_dropout": 0.1,
            "resblock": "1",
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": [[1, 3, 5]] * 3,
            "upsample_rates": [8, 8, 2, 2, 2],
            "upsample_initial_channel": 512,
            "upsample_kernel_sizes": [16, 16, 8, 2, 2],
            "n_speakers": 850,
            "gin_channels": 512,
            "n_layers_trans_flow": 4,
        },
    ),
    "MultiPeriodDiscriminator": (MultiPeriodDiscriminator, {}),
    "DurationDiscriminator": (
        DurationDiscriminator,
        {
            "in_channels": 192,
            "filter_channels": 192,
            "kernel_size": 3,
            "p_dropout": 0.1,
            "gin_channels": 512,
        },
    ),
    "WavLMDiscriminator": (
        WavLMDiscriminator,
        {"slm_hidden": 768, "slm_layers": 13, "initial_channel": 64},
    ),
}


def variant(case: str) -> dict[str, Any]:
    """Return constructor arguments of a case `Network/change`; `key` alone sets it to True.

    Several changes stand side by side: `key=value,key=value`.
    """
    change = case.partition("/")[2]
    arguments = {}
    for part in [] if change.startswith("full") else re.split(r", ?(?=[a-z_]+(?:=|,|$))", change):
        key, _, value = part.partition("=")
        parsed = ast.literal_eval(value) if value else True
        arguments[key] = str(parsed) if key == "resblock" else parsed
    return arguments


@pytest.mark.medium
@pytest.mark.parametrize("name", [name for name in REFERENCE.names() if runner_of(name)])
def test_network(name):
    check_network(REFERENCE, name)


@pytest.mark.parametrize("prefix", RUNNERS)
def test_every_network_is_in_the_projects_copy(prefix):
    assert OWN.names(prefix)


def test_the_published_languages_are_the_references():
    assert len(PUBLISHED) == NAMES_ENTRY["num_languages"]
    assert count_tones(PUBLISHED) == NAMES_ENTRY["num_tones"]


@pytest.mark.parametrize("case", NAMES)
def test_state_dict(case):
    network, arguments = FULL[case.partition("/")[0]]
    state = network(**{**arguments, **variant(case)}).state_dict()
    assert [(name, list(entry.shape)) for name, entry in state.items()] == list(
        map(tuple, NAMES[case].items())
    )
    assert len(state) == NAMES_ENTRY["tensors"][case]
    assert sum(entry.numel() for entry in state.values()) == NAMES_ENTRY["parameters"][case]


@pytest.mark.parametrize(
    "file", [file for file, entry in REFERENCE.manifest["files"].items() if "sha256" in entry]
)
def test_data_files_are_whole(file):
    content = (REFERENCE.root / "networks" / file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == REFERENCE.manifest["files"][file]["sha256"]
