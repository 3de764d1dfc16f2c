"""Voices without a run: published files speak, are exported and scored like a checkpoint."""

import json
import shutil
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import HfApi

from data.config import TextConfig
from job import evaluate, synthesize
from job import export as export_command
from job.settings.cli import read_config
from job.voice.export import export
from job.voice.source import opened
from job.voice.voice import SpeechRequest, Voice
from tests.job.reference_configs import REFUSED
from tests.job.voices import tiny_checkpoint
from tests.trainable.weights import test_hub

pytestmark = pytest.mark.medium  # a voice is made and exported

HELLO = ["--language", "EN", "--text", "Good morning."]


hub = test_hub.hub  # a fixture


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A checkpoint, what job.export makes of it in both forms, and what it says."""
    folder = tmp_path_factory.mktemp("voices")
    checkpoint = tiny_checkpoint(folder)
    for form in ("reference", "safetensors"):
        export(checkpoint, str(folder / form), form)
    spoken(checkpoint, folder / "run.wav")
    return folder


def spoken(source: object, out: Path, speaker: str = "en") -> np.ndarray:
    argv = ["--checkpoint", str(source), "--speaker", speaker, *HELLO, "--out", str(out)]
    assert synthesize.main([*argv, "--device", "cpu"]) == 0
    return soundfile.read(out)[0]


@pytest.mark.medium
@pytest.mark.parametrize("form", ["reference", "safetensors"])
def test_an_export_speaks_as_its_run_does(form, made, tmp_path):
    wave = spoken(made / form, tmp_path / "x.wav")
    assert np.array_equal(wave, soundfile.read(made / "run.wav")[0])


@pytest.mark.medium
@pytest.mark.parametrize("normaliser", ["ours", "reference"])
def test_an_export_reads_texts_as_its_run_does(normaliser, tmp_path):
    """What no config.json has a key for: numbers, and words of its own."""
    text = TextConfig(normaliser, words={"EN": {"morning": "N UW1 N"}})
    checkpoint = tiny_checkpoint(tmp_path, text)
    export(checkpoint, str(tmp_path / "out"), "safetensors", ["g"])
    request = SpeechRequest("Good morning at 3:05.", "en", "EN")
    readings = []
    for source in (checkpoint, tmp_path / "out"):
        with opened(str(source), speaks_only=True) as folder:
            voice = Voice.load(folder)
        assert voice.data.text == text
        readings.append(voice.read(request).reading.x.tolist())
    assert readings[0] == readings[1]


def test_a_voice_of_the_reference_is_read_as_there(made, tmp_path):
    content = json.loads((made / "reference/config.json").read_text())
    del content["bert_vits2_ray"]["data.text.normaliser"]
    source = published(tmp_path / "voice", made, content)
    with opened(str(source)) as folder:
        assert read_config(folder / "config.yaml").data.text == TextConfig("reference")


@pytest.mark.medium
def test_a_compressed_voice_speaks_and_is_not_trained_on(made, tmp_path):
    """In full precision it says the same: what it lacks is for training alone."""
    shutil.copy(made / "reference/config.json", tmp_path)
    model = torch.load(made / "reference/G_7.pth", weights_only=True)["model"]
    small = {key: value for key, value in model.items() if not key.startswith("enc_q.")}
    torch.save({"model": small, "iteration": 0}, tmp_path / "G_7_release.pth")
    wave = spoken(tmp_path, tmp_path / "x.wav")
    assert np.array_equal(wave, soundfile.read(made / "run.wav")[0])
    with pytest.raises(ValueError, match=r"G_7_release\.pth lacks enc_q\..*give the whole file"):
        export_command.main(["--checkpoint", str(tmp_path), "--out", str(tmp_path / "out")])
    del small["dec.conv_pre.weight"]
    torch.save({"model": small}, tmp_path / "G_7_release.pth")
    with pytest.raises(ValueError, match=r"G_7_release\.pth lacks dec\.conv_pre\.weight"):
        spoken(tmp_path, tmp_path / "y.wav")


@pytest.mark.medium
def test_published_files_are_exported_in_the_other_form(made, tmp_path):
    argv = ["--checkpoint", str(made / "safetensors"), "--out", str(tmp_path / "out")]
    assert export_command.main(argv) == 0
    for name in ("G", "D", "DUR", "WD"):
        before, after = (
            torch.load(folder / f"{name}_7.pth", weights_only=True)
            for folder in (made / "reference", tmp_path / "out")
        )
        assert before["model"].keys() == after["model"].keys()
        assert all(
            torch.equal(value, after["model"][key]) for key, value in before["model"].items()
        )
        assert after["iteration"] == before["iteration"]
    described = [
        json.loads((folder / "config.json").read_text())
        for folder in (made / "reference", tmp_path / "out")
    ]
    assert described[0]["data"]["spk2id"] == described[1]["data"]["spk2id"]
    assert described[0]["bert_vits2_ray"] == described[1]["bert_vits2_ray"]


@pytest.mark.medium
def test_speakers_without_names_are_called_by_their_numbers(made, tmp_path):
    folder = shutil.copytree(made / "safetensors", tmp_path / "voice")
    content = json.loads((folder / "config.json").read_text())
    del content["data"]["spk2id"]
    (folder / "config.json").write_text(json.dumps(content))
    wave = spoken(folder, tmp_path / "x.wav", speaker="2")
    assert np.array_equal(wave, soundfile.read(made / "run.wav")[0])


def published(folder: Path, made: Path, content: object) -> Path:
    """A folder with the generator and another config.json."""
    folder.mkdir(exist_ok=True)
    shutil.copy(made / "reference/G_7.pth", folder)
    if content is not None:
        (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"holds no config\.json: add the one"),
        ([], r"config\.json holds no JSON object"),
        REFUSED["Style-Bert-VITS2 2.3.1 JP-Extra"],
        REFUSED["Bert-VITS2 2.1"],
    ],
)
def test_files_that_are_no_voice_are_refused(content, message, made, tmp_path):
    source = published(tmp_path / "voice", made, content)
    with pytest.raises(ValueError, match=message) as refused:
        spoken(source, tmp_path / "x.wav")
    assert str(refused.value).startswith(f"--checkpoint {source}: ")
    assert not (tmp_path / "x.wav").exists()


def test_a_speaker_without_a_row_is_refused(made, tmp_path):
    content = json.loads((made / "reference/config.json").read_text())
    content["data"]["spk2id"] = {"en": content["data"]["n_speakers"]}
    with pytest.raises(ValueError, match=r"data\.speakers\.en is 8, but model\.n_speakers is 8"):
        spoken(published(tmp_path / "voice", made, content), tmp_path / "x.wav")


@pytest.mark.parametrize("name", ["G_latest.pth", "g_7.pth", "G_7.pt", "anna_e9_s7.safetensors"])
def test_files_of_other_names_are_named(name, tmp_path):
    (tmp_path / name).touch()
    message = rf"{tmp_path} holds neither .*: {name} is no name .*, which is G_<step>\.pth"
    with pytest.raises(ValueError, match=message):
        spoken(tmp_path, tmp_path / "x.wav")


def test_a_file_is_no_folder(made, tmp_path):
    file = made / "reference/G_7.pth"
    with pytest.raises(ValueError, match=r"G_7\.pth is a file: give the folder"):
        spoken(file, tmp_path / "x.wav")
    with pytest.raises(ValueError, match=r"G_7\.pth is a file: give the folder"):
        evaluate.main(["--checkpoint", str(file), "--out", str(tmp_path / "out")])


def test_what_published_files_do_not_have_is_asked_for(made, tmp_path):
    source = str(made / "reference")
    with pytest.raises(ValueError, match=r"--out or --shards is missing"):
        evaluate.main(["--checkpoint", source])
    argv = ["--checkpoint", source, "--weights", "ema", "--speaker", "en", *HELLO]
    with pytest.raises(ValueError, match="published files, which have no averaged weights"):
        synthesize.main([*argv, "--out", str(tmp_path / "x.wav")])
    with pytest.raises(ValueError, match=r"no speaker 'kim' \(this voice has: en, jp, zh\)"):
        spoken(source, tmp_path / "x.wav", speaker="kim")


@pytest.mark.medium
def test_a_voice_of_the_hub_speaks_by_its_name(hub, made, tmp_path, monkeypatch):
    # as HF_ENDPOINT would, which is read when the library is imported
    here = partial(HfApi, hub.address)
    monkeypatch.setattr("trainable.weights.hub.HfApi", lambda endpoint: here())
    names = ("G_7.safetensors", "config.json")
    hub.files |= {name: (made / "safetensors" / name).read_bytes() for name in names}
    wave = spoken("someone/voice", tmp_path / "x.wav")
    assert np.array_equal(wave, soundfile.read(made / "run.wav")[0])
    with pytest.raises(ValueError, match="nobody/voice is no folder here, and no model"):
        spoken("nobody/voice", tmp_path / "y.wav")


@pytest.mark.medium
def test_a_uri_of_published_files_speaks(made, tmp_path):
    for name in ("G_7.pth", "config.json"):
        content = (made / "reference" / name).read_bytes()
        fsspec.filesystem("memory").pipe_file(f"/a-voice/{name}", content)
    wave = spoken("memory://a-voice", tmp_path / "x.wav")
    assert np.array_equal(wave, soundfile.read(made / "run.wav")[0])


def test_a_run_that_is_not_there_is_no_name_on_the_hub(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match=r"runs/mine holds no checkpoint"):
        spoken("runs/mine", tmp_path / "x.wav")
