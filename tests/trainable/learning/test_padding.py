"""Padding to multiples (data.plan.pad_to) changes no loss, no gradient and no image.

In float64, with draws that are the same wherever both have one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from data.audio.recording import encode_flac
from data.config import DataConfig
from data.settings.plan import PadTo
from data.stream.collate import TtsBatch, collate, to_batch
from job.settings.config import Config
from tests.tiny import tiny_config
from trainable.learning.report import StepReport
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.networks.layers.modules import Dropout
from trainable.weights.slm import load_slm

LENGTHS = ((41, 9), (33, 5), (38, 7))  # frames, and phones without blanks
LARGEST = 128  # length of any draw
SHORT = PadTo(frames=1, tokens=1)
LONG = PadTo(frames=16, tokens=64)


def rows(cfg: Config) -> list[dict]:
    """Utterances of noise, as shards hold them."""
    rng = np.random.default_rng(0)
    made = []
    for frames, phones in LENGTHS:
        noise = 0.1 * rng.standard_normal(frames * cfg.data.hop_length).astype(np.float32)
        bert = rng.standard_normal((phones, cfg.model.bert_channels)).astype(np.float16)
        made.append(
            {
                "speaker": "a",
                "language": "EN",
                "phones": ["_", *["aa"] * (phones - 2), "_"],
                "tones": [0] * phones,
                "word2ph": [1] * phones,
                "audio": encode_flac(noise, cfg.data.sampling_rate),
                "bert": bert.tobytes(),
                "bert_width": cfg.model.bert_channels,
            }
        )
    return made


class InDouble(TtsBatch):
    """A batch whose features are float64 too."""

    def bert_features(self) -> tuple[Tensor, ...]:
        return tuple(own.double() for own in super().bert_features())


def batch_of(cfg: Config, data: DataConfig) -> TtsBatch:
    arrays = collate(rows(cfg), range(len(LENGTHS)), {"a": 1}, data)
    made = to_batch(arrays, bert_config=data.bert)
    made.y = made.y.double()
    if made.spec is not None:
        made.spec = made.spec.double()
    made = InDouble(**vars(made))
    return made.with_spectrogram(data)


@contextmanager
def cut_from_one_draw() -> Iterator[None]:
    """Number i of the draws is a corner of the same numbers, whatever its shape."""
    generator = torch.Generator()
    count = 0

    def draw(kind, *size, **kwargs):
        nonlocal count
        count += 1
        generator.manual_seed(count)
        shape = torch.Size(size[0] if isinstance(size[0], (list, tuple)) else size)
        whole = [n if place == 0 else LARGEST for place, n in enumerate(shape)]
        drawn = kind(*whole, generator=generator, dtype=torch.float64)
        return drawn[tuple(map(slice, shape))]

    rand, randn = torch.rand, torch.randn
    with (
        patch("torch.rand", lambda *size, **_: draw(rand, *size)),
        patch("torch.randn", lambda *size, **_: draw(randn, *size)),
        patch("torch.randn_like", lambda x: draw(randn, *x.shape)),
    ):
        yield


def stepped(cfg: Config, pad_to: PadTo) -> tuple[TtsBatch, StepReport, dict[str, Tensor]]:
    """A batch with this padding, a step's report on it, and all gradients."""
    data = replace(cfg.data, plan=replace(cfg.data.plan, pad_to=pad_to))
    torch.manual_seed(0)
    slm = load_slm(cfg.model.slm, data.sampling_rate).double()
    nets = build_networks(cfg.model, cfg.train, data, slm)
    for net in nets.values():
        net.double()
        for module in net.modules():
            if isinstance(module, Dropout):
                module.p = 0.0
    state = TrainState(nets, slm, cfg.model, cfg.train)
    grads: dict[str, Tensor] = {}

    def note(name):
        for key, p in nets[name].named_parameters():
            if p.grad is not None:
                grads[f"{name}.{key}"] = p.grad.clone()

    for name, optimizer in state.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: note(name))
    batch = batch_of(cfg, data)
    with cut_from_one_draw():
        report = TrainingStep(state, cfg.train, data)([(0, batch)], want_images=True)
    return batch, report, grads


@pytest.mark.medium
@pytest.mark.parametrize(
    ("where", "loss", "speakers"),
    [("pipeline", "faithful", 8), ("device", "corrected", 8), ("device", "faithful", 0)],
)
def test_a_step_computes_the_same_with_and_without_padding(where, loss, speakers):
    cfg = tiny_config(micro_batches_per_step=1, duration_discriminator_loss=loss)
    model = replace(
        cfg.model, n_speakers=speakers, use_spk_conditioned_encoder=speakers > 0, n_layers=3
    )
    # noise of the alignment that decides paths
    model = replace(model, mas_noise_scale_initial=0.5)
    cfg = replace(cfg, model=model, data=replace(cfg.data, spectrogram_on=where))
    short, expected, expected_grads = stepped(cfg, SHORT)
    long, report, grads = stepped(cfg, LONG)

    assert (short.x.shape[1], short.spec.shape[2]) == (19, 41)
    assert (long.x.shape[1], long.spec.shape[2]) == (64, 48)
    assert short.extent == long.extent
    assert (long.computed_frames, long.extent.own_frames) == (3 * 48, 41 + 33 + 38)

    assert set(report.scalars) == set(expected.scalars)
    for tag, value in expected.scalars.items():
        assert report.scalars[tag].item() == pytest.approx(value.item(), rel=1e-12, nan_ok=True), (
            tag
        )
    assert set(grads) == set(expected_grads)
    for key, grad in expected_grads.items():
        if key.endswith(".conv_k.bias"):
            # it moves no attention: what a CPU computes for it is rounding, of its weight's
            weight = expected_grads[key.removesuffix("bias") + "weight"]
            assert max(grads[key].norm(), grad.norm()) <= 1e-12 * weight.norm(), key
        else:
            assert (grads[key] - grad).norm() <= 1e-10 * grad.norm() + 1e-16, key
    assert set(report.images) == {"slice/mel_org", "slice/mel_gen", "all/mel", "all/attn"}
    for tag, image in expected.images.items():
        torch.testing.assert_close(report.images[tag], image, rtol=1e-11, atol=1e-11, msg=tag)
