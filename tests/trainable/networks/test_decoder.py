"""What every decoder keeps to, and that one declared in one place trains, resumes and speaks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data.plan.epoch_plan import Position
from job.settings.cli import read_config, to_yaml
from job.voice.voice import SpeechRequest, Voice
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.toy_decoder import ToyDecoder
from trainable.learning.state import check_sizes
from trainable.learning.step import TrainingStep
from trainable.model_config import ModelConfig
from trainable.networks.generator.build import build_generator
from trainable.networks.generator.decoder import DECODERS, build_decoder
from trainable.networks.generator.vocos import InverseSTFT
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointInfo

NAMES = [*DECODERS, "toy"]


@pytest.fixture(autouse=True)
def toy(monkeypatch) -> None:
    monkeypatch.setitem(DECODERS, "toy", ToyDecoder)


def decoder(name: str) -> tuple[ModelConfig, nn.Module, torch.Tensor, torch.Tensor]:
    """A decoder of the demo's sizes, seven latent frames of two items, and their speakers."""
    model = replace(tiny_config().model, decoder=name)
    torch.manual_seed(0)
    net = build_decoder(model)
    return (
        model,
        net,
        torch.randn(2, model.inter_channels, 7),
        torch.randn(2, model.gin_channels, 1),
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_as_many_samples_as_it_says(name):
    model, net, z, g = decoder(name)
    wave = net(z, g=g)
    assert wave.shape == (2, 1, 7 * DECODERS[name].samples_per_frame(model))
    assert wave.abs().max() < 1


@pytest.mark.parametrize("name", NAMES)
def test_under_a_mask_an_item_hears_nothing_of_its_padding(name):
    model, net, z, g = decoder(name)
    mask = torch.tensor([[1.0] * 5 + [0.0] * 2, [1.0] * 7]).unsqueeze(1)
    together, alone = net(z * mask, g=g, mask=mask), net(z[:1, :, :5], g=g[:1])
    own = 5 * DECODERS[name].samples_per_frame(model)
    assert torch.allclose(together[:1, :, :own], alone, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_recomputing_gives_the_same_bits(name):
    _, net, z, g = decoder(name)
    gradients = []
    for recompute in (False, True):
        net.recompute = recompute
        net.zero_grad()
        net(z, g=g).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(map(torch.equal, *gradients))


def test_the_inverse_transform_is_that_of_torch():
    """A waveform comes back from its spectrum, but for its ends, which fewer frames cover."""
    torch.manual_seed(0)
    wave = torch.randn(2, 20 * 64)
    window = torch.hann_window(256)
    padded = F.pad(wave, (96, 96))
    spectrum = torch.stft(padded, 256, 64, window=window, center=False, return_complex=True)
    made = InverseSTFT(256, 64)(torch.cat([spectrum.real, spectrum.imag], dim=1))
    assert made.shape == (2, 1, 20 * 64)
    assert torch.allclose(made.squeeze(1), wave, atol=1e-5)


@pytest.mark.medium
def test_a_decoder_declared_in_one_place(tmp_path: Path):
    """It trains two steps, is saved, resumed, and speaks: one text, and two of other lengths."""
    cfg = tiny_config(micro_batches_per_step=1, activation_checkpointing=True)
    cfg = replace(
        cfg,
        model=replace(cfg.model, decoder="toy"),
        data=replace(cfg.data, shards=str(tmp_path / "shards")),
    )
    state = tiny_state(cfg)
    assert isinstance(state.nets["g"].dec, ToyDecoder)
    assert state.nets["g"].dec.recompute
    before, step = state.digest(), TrainingStep(state, cfg.train, cfg.data)
    for number in range(2):
        report = step([(0, tiny_batch(cfg, number))])
        assert report.scalars["loss/g/total"].isfinite()
        state.position = Position(number + 1, 0, number + 1)
    assert state.digest() != before

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    info = CheckpointInfo(state.position, "", "", {"torch": torch.__version__}, {"en": 0}, 1)
    save_checkpoint(folder, state, info, to_yaml(cfg))
    resumed = tiny_state(read_config(folder / "config.yaml"))
    load_checkpoint(folder, resumed)
    assert resumed.digest() == state.digest()

    voice = Voice.load(folder)
    speeches = [SpeechRequest(text, "en", "EN") for text in ("Good morning, everybody.", "Yes.")]
    alone = [voice.say(speech) for speech in speeches]
    together = voice.speak([voice.read(speech) for speech in speeches])
    for own, beside in zip(alone, together, strict=True):
        assert len(own) % ToyDecoder.HOP == 0
        assert np.allclose(own, beside, atol=1e-5)


def test_what_does_not_keep_to_the_contract_is_refused_before_it_trains(monkeypatch):
    class Deaf(ToyDecoder):
        def forward(self, x, g=None):
            return super().forward(x, g)

    monkeypatch.setitem(DECODERS, "deaf", Deaf)
    cfg = tiny_config()
    with pytest.raises(TypeError, match=r"Deaf\.forward takes \(x, g\): a decoder takes .* mask"):
        build_generator(replace(cfg.model, decoder="deaf"), cfg.train.segment_size, cfg.data)


def test_settings_that_do_not_fit_name_their_keys():
    cfg = tiny_config()
    with pytest.raises(ValueError, match=r"model\.decoder is 'x': use one of hifigan, toy, vocos"):
        check_sizes(replace(cfg.model, decoder="x"), cfg.train, cfg.data)
    data = replace(cfg.data, hop_length=256)
    for name, keys in (
        ("hifigan", r"model\.upsample_rates"),
        ("vocos", r"model\.vocos\.hop_length"),
        ("toy", "its class"),
    ):
        with pytest.raises(ValueError, match=f"512 samples per frame .{keys}.*hop_length is 256"):
            check_sizes(replace(cfg.model, decoder=name), cfg.train, data)
