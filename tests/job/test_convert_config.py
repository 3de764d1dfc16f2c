"""config.json of the reference trainer, converted: every key accounted for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from data.settings.dotted_keys import flat
from data.settings.plan import PlanConfig
from job.convert_config import main
from job.settings.checks import check
from job.settings.cli import read_config
from job.settings.config import Config
from job.settings.reference.config import (
    FREEZES,
    KEEP,
    NOT_USED,
    OWN,
    PRECISIONS,
    REFUSED,
    SAME,
    own_settings,
    reference_config,
)
from tests.job.conftest import SMALL, metrics, overrides
from tests.job.reference_configs import CONVERTED, SLM, changed, without
from tests.job.reference_configs import REFUSED as OTHERS
from tests.job.reference_configs import V23 as REFERENCE
from tests.tiny import DEMO, tiny_batch, tiny_config, tiny_state
from trainable.config import TrainConfig
from trainable.learning.step import TrainingStep

# keys that the reference's networks have a default for -> its value
DEFAULTS_THERE = {
    "use_noise_scaled_mas": False,
    "use_duration_discriminator": False,
    "use_spk_conditioned_encoder": True,
    "gin_channels": 256,
    "n_layers_trans_flow": 4,
    "n_flow_layer": 4,
    "use_transformer_flow": True,
}


def convert(folder: Path, reference: dict) -> Config:
    (folder / "config.json").write_text(json.dumps(reference))
    assert main([str(folder / "config.json"), "--out", str(folder / "ours.yaml")]) == 0
    return read_config(folder / "ours.yaml")


def test_every_key_is_mapped_or_named_with_the_reason(tmp_path, capsys):
    convert(tmp_path, REFERENCE)
    told, written = capsys.readouterr().out, (tmp_path / "ours.yaml").read_text()
    for key in flat(REFERENCE, whole=SAME):
        if key not in SAME and key not in FREEZES and key not in PRECISIONS:
            reason = "false is all there is" if key in REFUSED else NOT_USED[key]
            assert f"not used: {key}: {reason}" in told
            assert f"#   {key}: {reason}" in written


def test_the_references_own_values_are_our_defaults(tmp_path):
    """So that a key that is missing there means here what it means there."""
    ours, defaults = convert(tmp_path, REFERENCE), Config()
    assert ours.model == replace(defaults.model, n_speakers=896)
    assert ours.train == replace(defaults.train, log_every_steps=200, image_every_steps=200)
    # an exported voice names a batch size even where its plan had none
    assert reference_config(defaults, {}, (768, 13))["train"]["batch_size"] == 16
    assert ours.data.plan.mode == "budget"
    assert (ours.data.plan.max_utterances, ours.data.plan.max_frames) == (
        16,
        16 * max(PlanConfig().bucket_boundaries),
    )
    assert ours.data.speakers == {"Ann": 0, "Bo": 1}
    # as its texts were read, whose weights may be gone on with
    assert ours.data.text.normaliser == "reference"
    same = {"plan": defaults.data.plan, "speakers": {}, "text": defaults.data.text}
    assert replace(ours.data, **same) == defaults.data


def test_what_it_changes_arrives(tmp_path):
    reference = changed(
        "train",
        batch_size=6,
        bf16_run=True,
        c_mel=30,
        eval_interval=500,
        log_interval=50,
        freeze_ZH_bert=True,
        freeze_EN_bert=True,
    )
    ours = convert(tmp_path, reference)
    assert ours.train.freeze == ("zh_bert", "en_bert")
    assert (ours.train.precision, ours.train.loss_weights.mel) == ("bf16", 30)
    assert (ours.train.log_every_steps, ours.train.image_every_steps) == (50, 50)
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


def test_what_the_reference_has_no_key_for_goes_there_and_back(tmp_path):
    demo = read_config(DEMO)
    vocos = replace(demo.model.vocos, channels=48, layers=3)
    demo = replace(demo, model=replace(demo.model, decoder="vocos", vocos=vocos))
    described = reference_config(demo, {"Ann": 0}, (8, 3)) | {OWN: own_settings(demo)}
    back = convert(tmp_path, described)
    assert (back.model, back.data.text) == (demo.model, demo.data.text)


def test_the_tables_name_keys_of_ours_and_no_key_twice():
    tables = [set(SAME), set(FREEZES), set(PRECISIONS), set(NOT_USED), set(REFUSED), {KEEP}]
    assert sum(map(len, tables)) == len(set.union(*tables))
    assert set(FREEZES) <= {f"train.freeze_{x}_bert" for x in ("ZH", "JP", "EN")}
    assert TrainConfig().freeze == ()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (changed("model", n_layers="six"), "model.n_layers"),
        (changed("data", hop_length=256), r"data.hop_length is 256"),
        (changed("train", batch_size=0), r"^data\.plan\.max_utterances is 0: give a whole number"),
        (changed("train", batch_size="16"), r"^data\.plan\.max_utterances is '16': give a whole"),
        (changed("train", bf16_run=True, fp16_run=True), "bf16_run and train.fp16_run are both"),
        (REFERENCE | {"train": [1]}, r"train is \[1\]: it must be an object of keys"),
        (changed("data", mel_fmax=50000), r"data\.mel_fmax is 50000"),
        (changed("model", slm="wavlm"), r"model\.slm is 'wavlm': it must be an object"),
        (changed("data", spk2id=["Ann"]), r"data\.spk2id is \['Ann'\]: it must be an object"),
        (changed("data", spk2id={"A.n": "0"}), r"data\.speakers\.A\.n is '0': give a whole"),
        (changed("data", spk2id={"A": 1, "B": 1}), r"data\.speakers gives A and B the row 1"),
        (changed("data", spk2id={"A": 896}), r"A is 896, but model\.n_speakers is 896: .* 897"),
        ([], "no JSON object"),
        # what would be taken for something else
        (changed("train", batch_size=None), r"train\.batch_size is null"),
        (changed("train", bf16_run="false"), r"train\.bf16_run is 'false': give true or false"),
        (changed("train", freeze_ZH_bert="no"), r"train\.freeze_ZH_bert is 'no': give true"),
        (changed("model", use_mel_posterior_encoder="false"), "posterior_encoder is 'false': give"),
        (changed("train", seed={"a": 1}), r"train\.seed is \{'a': 1\}"),
        (changed("model", slm=SLM | {"model": 3}), r"model\.slm\.model is 3"),
        (changed("data", spk2id={"A": 0, " A": 1}), r"data\.spk2id names A twice"),
        # the key that stands in the file
        (changed("train", batch_size=0), r"\(there: train\.batch_size\)$"),
        (changed("train", log_interval=0), r"\(there: train\.log_interval\)$"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_key(tmp_path, reference, message):
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, reference)
    assert not (tmp_path / "ours.yaml").exists()


def test_a_key_that_stands_there_twice_is_refused(tmp_path):
    twice = json.dumps(REFERENCE).replace('"Ann": 0,', '"Ann": 0, "Ann": 2,')
    (tmp_path / "config.json").write_text(twice)
    with pytest.raises(ValueError, match=r"config\.json: Ann stands there twice"):
        main([str(tmp_path / "config.json"), "--out", str(tmp_path / "ours.yaml")])


@pytest.mark.parametrize("name", CONVERTED)
def test_what_is_of_2_3_is_converted(tmp_path, name):
    ours = convert(tmp_path, CONVERTED[name])
    assert ours.model.slm.path.startswith("microsoft/wavlm-")
    # what job.train looks at before it starts
    check(ours)


@pytest.mark.parametrize("name", OTHERS)
def test_other_trainers_are_refused_by_name(tmp_path, name):
    content, message = OTHERS[name]
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, content)
    assert not (tmp_path / "ours.yaml").exists()


def test_absent_keys_mean_what_they_mean_there(tmp_path):
    """Those that the reference cannot do without mean what its release has."""
    whole = convert(tmp_path, REFERENCE).model
    absent = [f"model.{key}" for key in REFERENCE["model"] if key != "slm"]
    assert convert(tmp_path, without(*absent)).model == replace(whole, **DEFAULTS_THERE)


def test_names_of_speakers_are_those_of_the_lists(tmp_path):
    """Which are read composed, and without what nobody sees."""
    speakers = {"e\u0301mile ": 4, "\ufeffBo": 2}
    assert convert(tmp_path, changed("data", spk2id=speakers)).data.speakers == {
        "émile": 4,
        "Bo": 2,
    }


def test_names_of_speakers_are_kept_whatever_they_are(tmp_path):
    speakers = {"a.b": 4, "7": 2, "派蒙_ZH": 0, "no": 3, "null": 9, "x: y": 5, "1e3": 6}
    assert convert(tmp_path, changed("data", spk2id=speakers)).data.speakers == speakers


def test_a_forks_key_is_named(tmp_path, capsys):
    convert(tmp_path, changed("train", save_compressed_models=True))
    told = capsys.readouterr().out
    assert "not used: train.save_compressed_models: is no key of Bert-VITS2 2.3" in told


@pytest.mark.parametrize("keep", [0, 5])
def test_checkpoints_are_kept_as_it_says(tmp_path, keep):
    assert convert(tmp_path, changed("train", keep_ckpts=keep)).train.checkpoint.keep == keep


CONFIG_YML = """
dataset_path: Data/six
mirror: ""
openi_token: "secret"
preprocess_text: {transcription_path: filelists/six.list, config_path: config.json}
bert_gen: {num_processes: 4, device: cuda}
train_ms:
  env: {MASTER_ADDR: localhost, MASTER_PORT: 10086, WORLD_SIZE: 2, LOCAL_RANK: 0, RANK: 0}
  base: {use_base_model: false}
  model: models
  config_path: config.json
  num_workers: 16
  spec_cache: true
  keep_ckpts: 0
webui: {port: 7860}
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A project of the reference: config.yml above, config.json and the list in Data/six."""
    dataset = tmp_path / "Bert-VITS2/Data/six"
    (dataset / "filelists").mkdir(parents=True)
    (dataset / "models").mkdir()
    (tmp_path / "Bert-VITS2/config.yml").write_text(CONFIG_YML)
    (dataset / "filelists/six.list").write_text("Data/six/wavs/1.wav|Ann|EN|Hello.\n")
    return dataset


def test_its_config_yml_is_mapped_or_named(project, capsys):
    (project / "models/G_100.pth").touch()
    ours = convert(project, REFERENCE)
    told = capsys.readouterr().out
    assert ours.data.audio_root == str(project.parents[1])
    assert ours.data.transcript == str(project / "filelists/six.list")
    assert ours.train.init_from == str(project / "models")
    assert ours.train.checkpoint.keep == 0
    assert ours.train.micro_batches_per_step == 2
    for key in ("train_ms.env", "train_ms.num_workers", "train_ms.spec_cache", "webui"):
        assert f"not used: config.yml: {key}: " in told
    assert "secret" not in told + (project / "ours.yaml").read_text()
    assert "mirror" not in told  # it is empty


def test_a_config_yml_of_another_data_set_gives_no_list(project, capsys):
    file = project.parents[1] / "config.yml"
    file.write_text(CONFIG_YML.replace("Data/six", "Data/other"))
    ours = convert(project, REFERENCE)
    assert (ours.data.transcript, ours.train.init_from) == ("", None)
    assert ours.train.checkpoint.keep == 0
    assert "config.yml: dataset_path: is not the folder of this" in capsys.readouterr().out


def test_a_config_yml_of_another_layout(project, capsys):
    """Its config.json in a folder of its own, a number of processes as a text, and no list."""
    text = CONFIG_YML.replace("config_path: config.json", "config_path: configs/config.json")
    text = text.replace("WORLD_SIZE: 2", 'WORLD_SIZE: "4"').replace("Data/six", "Data\\six")
    (project.parents[1] / "config.yml").write_text(text)
    (project / "filelists/six.list").unlink()
    (project / "configs").mkdir()
    ours = convert(project / "configs", REFERENCE)
    assert ours.data.audio_root == str(project.parents[1])
    assert (ours.train.micro_batches_per_step, ours.data.transcript) == (4, "")
    assert "six.list is not there: set data.transcript" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["train_ms: [", "train_ms: &a {b: *a}"])
def test_a_config_yml_that_is_none_is_told(project, content):
    (project.parents[1] / "config.yml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yml is no YAML"):
        convert(project, REFERENCE)


def test_data_root_is_where_paths_start_from(tmp_path, monkeypatch):
    """Also those of the WavLM, if its weights lie there."""
    slm = tmp_path / "there/slm/wavlm-base-plus"
    slm.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(REFERENCE))
    monkeypatch.chdir(tmp_path)
    argv = ["config.json", "--out", "ours.yaml", "--data-root", "there"]
    assert main(argv) == 0
    ours = read_config("ours.yaml")
    assert ours.data.audio_root == str(tmp_path / "there")
    # the reference ships its description alone
    (slm / "config.json").touch()
    assert ours.model.slm.path == "microsoft/wavlm-base-plus"
    (slm / "pytorch_model.bin").touch()
    assert main(argv) == 0
    assert read_config("ours.yaml").model.slm.path == str(slm)


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
        # config.json names no BERT models and means the reference's texts; the shards are as in
        # the demo
        *overrides(data__text__normaliser="ours"),
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
