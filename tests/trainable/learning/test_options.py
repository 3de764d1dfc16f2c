"""What the options of a training step change: freezes, other losses and models, precision."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.plan.epoch_plan import Position
from job.settings.config import Config
from job.voice.voice import SpeechRequest, Voice
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.config import NotFiniteConfig
from trainable.learning.losses import masked_discriminator_loss, masked_generator_loss
from trainable.learning.optimizer import moments
from trainable.learning.state import TrainState
from trainable.learning.step import TrainingStep
from trainable.networks.generator.build import build_generator
from trainable.run.format import CheckpointInfo


def step_of(cfg: Config, state: TrainState, **batch: int):
    return TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0, **batch))])


@pytest.mark.medium
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_frozen_parameters_keep_their_values(reduction):
    names = ("zh_bert", "jp_bert", "g.dec.ups.*", "d.discriminators.0.*")
    cfg = tiny_config(micro_batches_per_step=1, freeze=names, reduction=reduction)
    state = tiny_state(cfg)
    before = {
        name: {key: p.clone() for key, p in net.named_parameters()}
        for name, net in state.nets.items()
    }
    for _ in range(2):  # the second step meets what the first one's phases switched on and off
        step_of(cfg, state)
    frozen = re.compile(r"g\.enc_p\.(ja_)?bert_proj\..*|g\.dec\.ups\..*|d\.discriminators\.0\..*")
    unchanged = {
        f"{name}.{key}"
        for name, net in state.nets.items()
        for key, p in net.named_parameters()
        if torch.equal(p, before[name][key])
    }
    everything = {f"{name}.{key}" for name, own in before.items() for key in own}
    assert unchanged == {key for key in everything if frozen.fullmatch(key)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("zh_bret",),
            r"train.freeze: 'zh_bret' names no parameter: give zh_bert, .* or a pattern",
        ),
        (("wd.*",), "wd"),
    ],
)
def test_freezes_that_make_no_sense_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        tiny_state(tiny_config(freeze=names))


@pytest.mark.medium
def test_a_run_may_freeze_others_when_it_goes_on():
    cfg = tiny_config(micro_batches_per_step=1, reduction="exact", freeze=("en_bert",))
    state, again = (
        tiny_state(cfg),
        tiny_state(tiny_config(micro_batches_per_step=1, freeze=("g.dec.*",))),
    )
    step_of(cfg, state)
    again.load_state_dict(state.state_dict())
    key = "enc_p.emb.weight"
    first, second = (
        moments(s.nets["g"], s.optimizers["g"])[key]["exp_avg"] for s in (state, again)
    )
    assert torch.equal(first, second)


def test_corrected_duration_loss_does_not_hear_padding_or_the_batch_size():
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(2, 3, 7, 1, generator=g) for _ in range(2))
    mask = torch.ones(3, 1, 7)
    mask[0, :, 5:] = 0
    loss, each_r, each_g = masked_discriminator_loss(list(real), list(fake), mask)
    own = mask.transpose(1, 2).bool()
    by_hand = [
        ((1 - r[own]) ** 2).mean() + (f[own] ** 2).mean() for r, f in zip(real, fake, strict=True)
    ]
    assert loss.item() == pytest.approx(sum(v.item() for v in by_hand) / 2, rel=1e-6)
    assert len(each_r) == len(each_g) == 2
    louder = [r + 9 * (1 - mask.transpose(1, 2)) for r in real]
    assert masked_discriminator_loss(louder, list(fake), mask)[0] == loss
    twice = masked_discriminator_loss(
        [torch.cat([r, r]) for r in real],
        [torch.cat([f, f]) for f in fake],
        torch.cat([mask, mask]),
    )[0]
    assert twice.item() == pytest.approx(loss.item(), rel=1e-6)
    assert masked_generator_loss(list(fake), mask)[0].item() == pytest.approx(
        sum(((1 - f[own]) ** 2).mean().item() for f in fake) / 2, rel=1e-6
    )


@pytest.mark.medium
def test_a_step_with_the_corrected_duration_loss():
    """By predictor, not by utterance; nothing else changes in a first step's losses."""
    values = {}
    for kind in ("faithful", "corrected"):
        cfg = tiny_config(micro_batches_per_step=1, duration_discriminator_loss=kind)
        report = step_of(cfg, tiny_state(cfg), utterances=3)
        losses = zip(report.scalars.items(), report.present, strict=False)
        values[kind] = {tag: value.item() for (tag, value), present in losses if present}
    assert "loss/dur_disc_r/2" in values["faithful"]
    assert {tag for tag in values["corrected"] if tag.startswith("loss/dur_disc_r/")} == {
        "loss/dur_disc_r/0",
        "loss/dur_disc_r/1",
    }
    for tag in ("loss/d/total", "loss/wd/total", "loss/g/dur", "loss/g/kl"):
        assert values["faithful"][tag] == values["corrected"][tag], tag
    assert (
        values["faithful"]["loss/dur_disc/total"] > 3 * values["corrected"]["loss/dur_disc/total"]
    )


VITS1 = {
    "use_transformer_flow": False,
    "use_spk_conditioned_encoder": False,
    "use_noise_scaled_mas": False,
    "use_duration_discriminator": False,
}


@pytest.mark.medium
@pytest.mark.parametrize("change", [VITS1, {"n_speakers": 0, "use_spk_conditioned_encoder": False}])
def test_other_models_train(change):
    """VITS, and a model without a speaker table, which takes the voice from the recording."""
    cfg = tiny_config(micro_batches_per_step=1)
    cfg = replace(cfg, model=replace(cfg.model, **change))
    state = tiny_state(cfg)
    before = state.digest()
    report = step_of(cfg, state, frames=90)
    assert all(torch.isfinite(v) for tag, v in report.scalars.items() if "dur_" not in tag)
    assert state.digest() != before


def test_a_speaker_conditioned_encoder_needs_speakers():
    cfg = tiny_config()
    with pytest.raises(
        ValueError, match=r"use_spk_conditioned_encoder needs a speaker table: set model.n_speakers"
    ):
        tiny_state(replace(cfg, model=replace(cfg.model, n_speakers=0)))


@pytest.mark.medium
def test_fp16_overflow_of_one_network_skips_that_network_alone():
    cfg = tiny_config(micro_batches_per_step=1, precision="fp16")
    state = tiny_state(cfg)
    state.scalers = {
        name: torch.amp.GradScaler("cpu", init_scale=2.0**40 if name == "wd" else 1.0)
        for name in state.nets
    }
    before = {name: [p.clone() for p in net.parameters()] for name, net in state.nets.items()}
    step_of(cfg, state)
    changed = {
        name
        for name, net in state.nets.items()
        if not all(map(torch.equal, net.parameters(), before[name]))
    }
    assert changed == {"g", "d", "dur"}
    assert state.scalers["wd"].get_scale() == 2.0**39
    assert state.scalers["g"].get_scale() == 1.0


def test_a_voice_without_a_speaker_table_speaks_as_a_recording():
    cfg = tiny_config()
    cfg = replace(cfg, model=replace(cfg.model, n_speakers=0, use_spk_conditioned_encoder=False))
    info = CheckpointInfo(Position(), "", "", {}, {"Ann": 0}, 1)
    g = build_generator(cfg.model, cfg.train.segment_size, cfg.data).eval()
    with pytest.raises(
        ValueError, match=r"no speaker table: give a recording of the speaker \(--reference\)"
    ):
        Voice(g, cfg.data, info)
    rng = np.random.default_rng(0)
    low, high = (rng.normal(size=60_000).astype(np.float32) * scale for scale in (0.01, 0.3))
    speech = SpeechRequest("Hello.", language="EN")
    first, again, other = (Voice(g, cfg.data, info, wave).say(speech) for wave in (low, low, high))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:1000], other[:1000])


@pytest.mark.medium
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_a_broken_micro_batch_is_skipped_by_the_networks_that_it_reaches(reduction):
    """Weights and moments stay as they were, bit for bit; the next step trains again."""
    policy = NotFiniteConfig(policy="skip")
    cfg = tiny_config(micro_batches_per_step=2, reduction=reduction, not_finite=policy)
    state = tiny_state(cfg)
    step, good, broken = (
        TrainingStep(state, cfg.train, cfg.data),
        tiny_batch(cfg, 0),
        tiny_batch(cfg, 1),
    )
    broken.spec[:], broken.y[:] = torch.nan, torch.nan
    report = step([(0, good), (1, tiny_batch(cfg, 2))])
    assert not any(report.scalars[f"skipped_{name}"] for name in state.nets)
    before = {
        name: copy.deepcopy((net.state_dict(), moments(net, state.optimizers[name])))
        for name, net in state.nets.items()
    }
    report = step([(0, good), (1, broken)])
    assert report.broken.tolist() == [False, True]
    assert all(report.scalars[f"skipped_{name}"] for name in ("g", "d", "wd"))
    for name, net in state.nets.items():
        same = all(map(torch.equal, net.state_dict().values(), before[name][0].values()))
        assert same == bool(report.scalars[f"skipped_{name}"]), name
        if same:
            for key, entry in moments(net, state.optimizers[name]).items():
                assert all(
                    torch.equal(value, before[name][1][key][kind]) for kind, value in entry.items()
                )
    report = step([(0, good), (1, tiny_batch(cfg, 2))])
    assert not any(report.scalars[f"skipped_{name}"] for name in state.nets)
    assert not torch.equal(state.nets["g"].enc_p.emb.weight, before["g"][0]["enc_p.emb.weight"])


@pytest.mark.medium
def test_skipping_changes_nothing_where_all_is_well():
    digests = set()
    for policy in ("stop", "skip"):
        cfg = tiny_config(micro_batches_per_step=1, not_finite=NotFiniteConfig(policy=policy))
        state = tiny_state(cfg)
        step_of(cfg, state)
        digests.add(state.digest())
    assert len(digests) == 1


@pytest.mark.medium
def test_an_exploding_gradient_is_skipped():
    cfg = tiny_config(
        micro_batches_per_step=1, not_finite=NotFiniteConfig(policy="skip", max_grad_norm=1e-3)
    )
    state = tiny_state(cfg)
    before = state.digest()
    report = step_of(cfg, state)
    assert report.scalars["grad_norm_g"] > 1e-3
    assert all(report.scalars[f"skipped_{name}"] for name in state.nets)
    assert state.digest() == before
