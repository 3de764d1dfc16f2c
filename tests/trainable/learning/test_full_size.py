"""The full 2.3 model: the reference's parameter counts, and one step on the CPU, without Ray."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import WavLMConfig, WavLMModel

from job.settings.cli import read_config
from tests.tiny import tiny_batch
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.networks.wavlm import WavLMFeatures

PARAMETERS = {"g": 61_020_017, "d": 46_747_132, "dur": 1_209_409, "wd": 1_173_634}


@pytest.mark.medium
def test_one_step_of_the_base_preset():
    cfg = read_config(Path(__file__).parents[3] / "job/presets/base.yaml")
    # transformers' default is base-plus size
    slm = WavLMFeatures(WavLMModel(WavLMConfig()), cfg.data.sampling_rate)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    assert {
        name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()
    } == PARAMETERS
    state = TrainState(nets, slm, cfg.model, replace(cfg.train, precision="fp32"))
    before = {
        name: torch.cat([p.detach().flatten() for p in net.parameters()])
        for name, net in nets.items()
    }
    report = TrainingStep(state, cfg.train, cfg.data)(
        [(0, tiny_batch(cfg, 0, utterances=2, frames=120, phones=41))]
    )
    assert all(torch.isfinite(v) for tag, v in report.scalars.items() if not tag[-1].isdigit())
    for name, net in nets.items():
        assert (
            torch.cat([p.detach().flatten() for p in net.parameters()]) != before[name]
        ).float().mean() > 0.5, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 10 * 2**20  # KiB
