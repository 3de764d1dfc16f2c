"""config.json of the reference trainer, converted: every key accounted for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from data.config import PlanConfig
from data.dotted_keys import flat
from job.convert_config import main
from job.settings.cli import read_config
from job.settings.config import Config
from job.settings.reference_config import (
    FREEZES,
    NOT_USED,
    PRECISIONS,
    REFUSED,
    SAME,
    reference_config,
)
from tests.job.conftest import SMALL, metrics, overrides
from tests.tiny import DEMO, tiny_batch, tiny_config, tiny_state
from trainable.config import TrainConfig
from trainable.learning.step import TrainingStep

# what the reference's release 2.3 ships
REFERENCE = {
    "train": {
        "log_interval": 200,
        "eval_interval": 1000,
        "seed": 42,
        "epochs": 1000,
        "learning_rate": 0.0002,
        "betas": [0.8, 0.99],
        "eps": 1e-9,
        "batch_size": 16,
        "bf16_run": False,
        "lr_decay": 0.99995,
        "segment_size": 16384,
        "init_lr_ratio": 1,
        "warmup_epochs": 0,
        "c_mel": 45,
        "c_kl": 1.0,
        "c_commit": 100,
        "skip_optimizer": True,
        "freeze_ZH_bert": False,
        "freeze_JP_bert": False,
        "freeze_EN_bert": False,
        "freeze_emo": False,
    },
    "data": {
        "training_files": "filelists/train.list",
        "validation_files": "filelists/val.list",
        "max_wav_value": 32768.0,
        "sampling_rate": 44100,
        "filter_length": 2048,
        "hop_length": 512,
        "win_length": 2048,
        "n_mel_channels": 128,
        "mel_fmin": 0.0,
        "mel_fmax": None,
        "add_blank": True,
        "n_speakers": 896,
        "cleaned_text": True,
        "spk2id": {"Ann": 0, "Bo": 1},
    },
    "model": {
        "use_spk_conditioned_encoder": True,
        "use_noise_scaled_mas": True,
        "use_mel_posterior_encoder": False,
        "use_duration_discriminator": True,
        "inter_channels": 192,
        "hidden_channels": 192,
        "filter_channels": 768,
        "n_heads": 2,
        "n_layers": 6,
        "kernel_size": 3,
        "p_dropout": 0.1,
        "resblock": "1",
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "upsample_rates": [8, 8, 2, 2, 2],
        "upsample_initial_channel": 512,
        "upsample_kernel_sizes": [16, 16, 8, 2, 2],
        "n_layers_q": 3,
        "use_spectral_norm": False,
        "gin_channels": 512,
        "slm": {
            "model": "./slm/wavlm-base-plus",
            "sr": 16000,
            "hidden": 768,
            "nlayers": 13,
            "initial_channel": 64,
        },
    },
    "version": "2.3",
}


def convert(folder: Path, reference: dict) -> Config:
    (folder / "config.json").write_text(json.dumps(reference))
    assert main([str(folder / "config.json"), "--out", str(folder / "ours.yaml")]) == 0
    return read_config(folder / "ours.yaml")


def changed(section: str, **keys: object) -> dict:
    return REFERENCE | {section: REFERENCE[section] | keys}


def test_every_key_is_mapped_or_named_with_the_reason(tmp_path, capsys):
    convert(tmp_path, REFERENCE)
    told, written = capsys.readouterr().out, (tmp_path / "ours.yaml").read_text()
    for key in flat(REFERENCE, whole=NOT_USED):
        if key not in SAME and key not in FREEZES and key not in PRECISIONS:
            reason = "false is all there is" if key in REFUSED else NOT_USED[key]
            assert f"not used: {key}: {reason}" in told
            assert f"#   {key}: {reason}" in written


def test_the_references_own_values_are_our_defaults(tmp_path):
    """So that a key that is missing there means here what it means there."""
    ours, defaults = convert(tmp_path, REFERENCE), Config()
    assert ours.model == replace(
        defaults.model, n_speakers=896, slm=replace(ours.model.slm, path=ours.model.slm.path)
    )
    assert ours.model.slm == replace(defaults.model.slm, path="./slm/wavlm-base-plus")
    assert ours.train == replace(defaults.train, log_every_steps=200)
    # an exported voice names a batch size even where its plan had none
    assert reference_config(defaults, {}, (768, 13))["train"]["batch_size"] == 16
    assert ours.data.plan.mode == "budget"
    assert (ours.data.plan.max_utterances, ours.data.plan.max_frames) == (
        16,
        16 * max(PlanConfig().bucket_boundaries),
    )
    assert replace(ours.data, plan=defaults.data.plan) == defaults.data


def test_what_it_changes_arrives(tmp_path):
    reference = changed(
        "train",
        batch_size=6,
        bf16_run=True,
        c_mel=30,
        eval_interval=500,
        freeze_ZH_bert=True,
        freeze_EN_bert=True,
    )
    ours = convert(tmp_path, reference)
    assert ours.train.freeze == ("zh_bert", "en_bert")
    assert (ours.train.precision, ours.train.loss_weights.mel) == ("bf16", 30)
    assert (
        ours.train.checkpoint.every_steps,
        ours.eval.every_steps,
        ours.data.plan.max_utterances,
    ) == (500, 500, 6)


def test_there_and_back_again(tmp_path):
    """What job.export writes is converted back, as far as the reference's keys go."""
    demo = read_config(DEMO)
    demo = replace(demo, train=replace(demo.train, precision="bf16", freeze=("jp_bert",)))
    back = convert(tmp_path, reference_config(demo, {"Ann": 0}, (8, 3)))
    assert back.model == replace(demo.model, bert_channels=1024, discriminator_width_divisor=1)
    assert reference_config(back, {"Ann": 0}, (8, 3)) == reference_config(demo, {"Ann": 0}, (8, 3))


def test_the_tables_name_keys_of_ours_and_no_key_twice():
    tables = [set(SAME), set(FREEZES), set(PRECISIONS), set(NOT_USED), set(REFUSED)]
    assert sum(map(len, tables)) == len(set.union(*tables))
    assert set(FREEZES) <= {f"train.freeze_{x}_bert" for x in ("ZH", "JP", "EN")}
    assert TrainConfig().freeze == ()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (REFERENCE | {"version": "2.1"}, "version is 2.1"),
        ({}, "version is none"),
        (
            changed("model", use_mel_posterior_encoder=True),
            "model.use_mel_posterior_encoder is True",
        ),
        (changed("model", n_layers="six"), "model.n_layers"),
        (changed("data", hop_length=256), r"data.hop_length is 256"),
        (changed("train", batch_size=0), r"^data\.plan\.max_utterances is 0: give a whole number"),
        (changed("train", batch_size="16"), r"^data\.plan\.max_utterances is '16': give a whole"),
        (changed("train", bf16_run=True, fp16_run=True), "bf16_run and train.fp16_run are both"),
        (REFERENCE | {"train": [1]}, r"train is \[1\]: it must be an object of keys"),
        (changed("data", mel_fmax=50000), r"data\.mel_fmax is 50000"),
        ([], "no JSON object"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_key(tmp_path, reference, message):
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, reference)
    assert not (tmp_path / "ours.yaml").exists()


def test_a_forks_key_is_named(tmp_path, capsys):
    convert(tmp_path, changed("train", keep_ckpts=8))
    assert "not used: train.keep_ckpts: is no key of Bert-VITS2 2.3" in capsys.readouterr().out


def small_reference() -> dict:
    """A config.json of the demo's size, which a CPU trains in seconds."""
    return reference_config(read_config(DEMO), {}, (8, 3))


@pytest.mark.medium
def test_what_it_gives_takes_a_training_step(tmp_path):
    """The networks are built and stepped; the BERT width, absent in config.json, is the demo's."""
    ours, demo = convert(tmp_path, small_reference()), tiny_config()
    model = replace(ours.model, bert_channels=32, discriminator_width_divisor=16)
    cfg = replace(demo, model=model, train=replace(ours.train, segment_size=4096))
    report = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)([(0, tiny_batch(cfg, 1))])
    assert all(
        report.scalars[f"loss/{name}/total"].isfinite() for name in ("g", "d", "dur_disc", "wd")
    )


@pytest.mark.slow
def test_what_it_gives_trains(command, shards, tmp_path):
    convert(tmp_path, small_reference())
    done = command(
        "job.train",
        "--config",
        str(tmp_path / "ours.yaml"),
        "--data.shards",
        str(shards),
        "--run.name",
        "a",
        "--run.storage",
        str(tmp_path),
        "--train.max_steps",
        "4",
        "--model.bert_channels",
        "32",
        "--model.discriminator_width_divisor",
        "16",
        "--model.n_speakers",
        "8",
        # config.json names no BERT models; the shards have the demo's
        *overrides(data__bert__zh="random", data__bert__jp="random", data__bert__en="random"),
        *overrides(data__bert__random_width=32),
        *SMALL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in metrics(tmp_path / "a")] == [1, 2, 3, 4]


def test_its_output_is_yaml_that_says_where_it_is_from(tmp_path):
    convert(tmp_path, REFERENCE)
    text = (tmp_path / "ours.yaml").read_text()
    assert text.startswith("# Made by job.convert_config from config.json; ")
    assert yaml.safe_load(text)["train"]["seed"] == 42
