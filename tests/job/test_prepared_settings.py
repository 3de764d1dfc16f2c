"""Shards and settings that say different things: refused or told, before anything starts."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import job.prepare
import job.train
from data.plan.epoch_plan import Position
from data.shards.manifest import read_manifest
from job.settings.checks import trainable_manifest
from job.settings.cli import config_of, to_yaml
from job.settings.paths import with_absolute_paths
from tests.data.corpus.without_ray import without_ray, write_sound
from tests.job.conftest import DEMO, overrides
from tests.job.test_bad_input import error_of
from tests.tiny import tiny_state
from trainable.run.checkpoint import save_checkpoint
from trainable.run.format import CheckpointInfo

pytestmark = pytest.mark.medium  # each runs commands, which takes ten seconds together

TEXTS = ["Good morning, everybody.", "It costs a lot of money.", "He is here.", "Not now, please."]


def write_corpus(folder: Path, speakers: str = "aabb", splits: str = "") -> Path:
    """Write recordings, and a transcript of them: a speaker and a split (t, v) per line."""
    rows = []
    for number, speaker in enumerate(speakers):
        write_sound(folder / f"{number}.wav", number, 1.5 + 0.1 * number)
        row = {"path": f"{number}.wav", "speaker": speaker, "language": "EN"}
        row["text"] = TEXTS[number % len(TEXTS)]
        if splits:
            row["split"] = {"t": "train", "v": "validation"}[splits[number]]
        rows.append(row)
    path = folder / "esd.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def commands(call, monkeypatch):
    """job.prepare and job.train in this process; what needs Ray computes here or is not reached."""
    monkeypatch.setattr("job.on_ray.cluster.ray_session", contextlib.nullcontext)
    without_ray(monkeypatch)

    def run(module: str, folder: Path, **options: object):
        base = {
            "data__transcript": folder / "esd.jsonl",
            "data__shards": folder / "shards",
            "run__storage": folder / "runs",
        }
        return call(module, "--config", DEMO, *overrides(**base | options))

    return run


def configuration(folder: Path, **options: object):
    base = {"data__transcript": folder / "esd.jsonl", "data__shards": folder / "shards"}
    argv = ["--config", str(DEMO), *overrides(**base | options)]
    return with_absolute_paths(config_of(argv))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A corpus and its shards, prepared with the demo preset."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        patch.setattr(job.prepare, "ray_session", contextlib.nullcontext)
        base = {"data__transcript": folder / "esd.jsonl", "data__shards": folder / "shards"}
        assert job.prepare.main(["--config", str(DEMO), *overrides(**base)]) == 0
    return folder


CHANGED = {
    "data.peak": ("None", 0.9),
    "data.loudness": ("None", -23.0),
    "data.trim_db": ("None", 40.0),
    "data.min_seconds": ("0.4", 0.6),
    "data.max_seconds": ("20.0", 15.0),
    "data.add_blank": ("True", "false"),
    "data.split_seed": ("0", 3),
    "data.validation_per_speaker": ("1", 2),
    "data.validation_share": ("0.01", 0.2),
    "data.spectrogram_on": ("pipeline or device", "shards"),
    "data.bert.random_width": (r"random \(32 wide\)", 48),
    "data.sampling_rate": ("44100", 22050),
    "data.hop_length": ("512", 256),
    "data.filter_length": ("2048", 4096),
    "data.win_length": ("2048", 1024),
}


@pytest.mark.parametrize("key", CHANGED)
def test_a_setting_that_the_shards_do_not_have_is_refused(key, prepared, commands):
    before, now = CHANGED[key]
    extra = {}
    if key == "data.hop_length":  # what the decoder makes of a frame must fit it
        extra = {
            "model__upsample_rates": "[8, 8, 2, 2, 1]",
            "model__upsample_kernel_sizes": "[16, 16, 8, 2, 1]",
        }
    done = commands("job.train", prepared, **{key.replace(".", "__"): now}, **extra)
    message = error_of(done)
    named = "data.bert.en" if key.startswith("data.bert") else key
    assert re.search(rf"was prepared with .*{named} {before}, the configuration has", message)
    assert "prepare again" in message
    assert not (prepared / "runs").exists()


def test_all_keys_are_named_at_once(prepared, commands):
    message = error_of(
        commands("job.train", prepared, data__loudness=-23.0, data__max_seconds=12.0)
    )
    assert "data.loudness None, the configuration has -23.0" in message
    assert "data.max_seconds 20.0, the configuration has 12.0" in message
    assert "python -m job.prepare" in message


@pytest.mark.parametrize(
    "harmless",
    [
        {},
        {"data__transcript": ""},
        {"data__audio_root": "/elsewhere"},
        {"data__max_reject_share": 0.5},
        {"data__trim_margin": 0.3},
        {"data__japanese_engine": "strict"},
        {"data__bert__zh": "somebody/model"},
        {"data__spectrogram_on": "device"},
        {"data__n_mel_channels": 80},
    ],
)
def test_what_the_shards_do_not_depend_on_may_change(harmless, prepared, capsys):
    trainable_manifest(configuration(prepared, **harmless))
    assert "has changed" not in capsys.readouterr().out


def test_a_transcript_may_be_gone_or_moved_and_is_told_of_if_it_differs(prepared, tmp_path, capsys):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    moved = folder / "esd.jsonl"
    trainable_manifest(configuration(folder))  # another name, the same content
    trainable_manifest(configuration(folder, data__transcript=tmp_path / "nowhere.jsonl"))
    assert "nowhere.jsonl" in capsys.readouterr().out

    moved.write_text(moved.read_text().replace("Not now", "Perhaps later"))
    with pytest.raises(ValueError, match=r"data\.transcript .*esd\.jsonl, the configuration has"):
        trainable_manifest(configuration(folder))


def test_a_transcript_that_grew_is_told_of(commands, tmp_path, capsys):
    write_corpus(tmp_path)
    assert commands("job.prepare", tmp_path).returncode == 0
    write_corpus(tmp_path, "aabbb")
    trainable_manifest(configuration(tmp_path))
    said = capsys.readouterr().out
    assert f"{tmp_path}/esd.jsonl has changed since the shards were prepared" in said
    (tmp_path / "esd.jsonl").unlink()
    trainable_manifest(configuration(tmp_path))
    assert "esd.jsonl" not in capsys.readouterr().out


def test_a_model_of_the_same_files_may_have_another_name(prepared, tmp_path):
    copied = shutil.copytree(prepared / "shards/bert/EN-32", tmp_path / "deberta")
    trainable_manifest(configuration(prepared, data__bert__en=copied))
    (copied / "config.json").write_text((copied / "config.json").read_text() + " ")
    with pytest.raises(ValueError, match=r"data\.bert\.en random"):
        trainable_manifest(configuration(prepared, data__bert__en=copied))


def test_an_old_manifest_is_compared_as_far_as_it_tells(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    path = folder / "shards/manifest.json"
    header = json.loads(path.read_text())
    del header["prepared"]
    path.write_text(json.dumps(header))
    trainable_manifest(configuration(folder, data__loudness=-23.0))
    with pytest.raises(ValueError, match=r"data\.max_seconds 1\.80 or more"):
        trainable_manifest(configuration(folder, data__max_seconds=1.6))
    with pytest.raises(ValueError, match=r"data\.min_seconds 1\.50 or less"):
        trainable_manifest(configuration(folder, data__min_seconds=1.6))
    with pytest.raises(ValueError, match=r"data\.add_blank True"):
        trainable_manifest(configuration(folder, data__add_blank="false"))


def test_preparing_again_says_what_changed(commands, tmp_path):
    write_corpus(tmp_path)
    assert commands("job.prepare", tmp_path).returncode == 0
    again = commands("job.prepare", tmp_path)
    assert "0 of 4 rows are computed" in again.stdout
    done = commands("job.prepare", tmp_path, data__peak=0.9, data__rows_per_shard=2)
    assert done.returncode == 0, done.stderr
    assert "data.peak was None, is 0.9" in done.stdout
    assert "data.rows_per_shard was 16, is 2 (in new shards alone)" in done.stdout
    assert "4 of 4 rows are computed" in done.stdout
    trainable_manifest(configuration(tmp_path, data__peak=0.9))


def test_a_transcript_that_holds_everything_back(commands, tmp_path):
    """Refused by job.prepare with the line, and by job.train if older code had prepared it."""
    write_corpus(tmp_path, splits="vvvv")
    message = error_of(commands("job.prepare", tmp_path))
    assert f"{tmp_path}/esd.jsonl:1: this and all other lines are of the split" in message
    assert not (tmp_path / "shards/manifest.json").exists()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.prepare.prepare.__module__ + ".check_training_split", lambda *_: None)
        assert commands("job.prepare", tmp_path).returncode == 0
    message = error_of(commands("job.train", tmp_path))
    assert "all 4 utterances are of the split validation, nothing is left to train on" in message
    assert "segment" not in message


def test_what_the_splits_lack_is_told(commands, tmp_path):
    write_corpus(tmp_path, "aabbcc", splits="tvttvv")
    done = commands("job.prepare", tmp_path)
    assert done.returncode == 0, done.stderr
    told = [
        "speaker without a training line (not learned): c",
        "speaker without a validation line (no score tells how it is spoken): b",
    ]
    report = (tmp_path / "shards/report.html").read_text("utf-8")
    for line in told:
        assert f"warning: {line}" in done.stdout
        assert line in report


def test_no_validation_at_all_is_told(commands, tmp_path, capsys):
    write_corpus(tmp_path, splits="tttt")
    done = commands("job.prepare", tmp_path, data__validation_per_speaker=0)
    assert "warning: no line is held back for validation" in done.stdout
    trainable_manifest(configuration(tmp_path, data__validation_per_speaker=0))
    assert "note: no utterance is held back for validation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("eval__sentences", '{"FR": "Bonjour."}', "eval.sentences.FR: no such language"),
        ("eval__sentences", '{"en": "Hello."}', "did you mean EN?"),
        ("eval__sentences", '{"EN": " "}', "eval.sentences.EN is empty"),
        (
            "eval__scorers",
            '{"mos": {"factory": "no.such:scorer", "path": "x"}}',
            "eval.scorers.mos.factory 'no.such:scorer' cannot be imported",
        ),
        (
            "eval__scorers",
            '{"mos": {"factory": "trainable.evaluation.scorers:nothing", "path": "x"}}',
            "cannot be imported",
        ),
        ("eval__scorers", '{"mos": {"factory": "json", "path": "x"}}', "give module:function"),
        ("eval__scorers", '{"mos": {"factory": "math:pi", "path": "x"}}', "is no function"),
    ],
)
def test_sentences_and_scorers_that_cannot_be(option, value, told, prepared, commands):
    message = error_of(commands("job.train", prepared, **{option: value}))
    assert told in message
    if "no such language" in told:
        assert "there are ZH, JP, EN" in message
    assert not (prepared / "runs").exists()


def test_a_sentence_that_nobody_speaks_is_told_of(prepared, capsys):
    trainable_manifest(configuration(prepared))
    said = capsys.readouterr().out
    assert "note: eval.sentences.ZH is not spoken: no utterance is in this language" in said
    assert "there are EN" in said
    assert "eval.sentences.EN" not in said


def checkpoint(folder: Path, shards: Path, speakers: dict[str, int]) -> Path:
    """A checkpoint of random weights, trained on these shards as far as it says."""
    cfg = configuration(folder, data__shards=shards, train__segment_size=4096, **FEW)
    state = tiny_state(cfg)
    # as large as a trained voice's: others sound different
    torch.nn.init.normal_(state.nets["g"].emb_g.weight, std=3.0)
    state.position = Position(7, 0, 7)
    at = folder / "run/checkpoint_000000007"
    at.mkdir(parents=True)
    save_checkpoint(
        at, state, CheckpointInfo(state.position, "", "", {}, speakers, 1), to_yaml(cfg)
    )
    return at


FEW = {"eval__max_utterances": 4, "eval__syntheses": 1, "eval__max_frames": 50}


def scores(call, at: Path, out: Path, *argv: object) -> dict[str, float]:
    """Score it with teacher forcing: `<group> <tag>` -> score."""
    done = call("job.evaluate", "--checkpoint", at, "--samples", 0, "--out", out, *argv)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "evaluation.json").read_text())["scores"]
    return {
        f"{group} {tag}": own[tag] for group, own in found.items() for tag in ("mel", "kl", "dur")
    }


@pytest.mark.medium
def test_other_shards_are_scored_with_the_voices_of_their_speakers(
    prepared, commands, call, tmp_path
):
    """However they number them; and a speaker whom nobody trained is refused."""
    at = checkpoint(tmp_path, prepared / "shards", {"a": 0, "b": 1})
    expected = scores(call, at, tmp_path / "first", "--split", "train")

    other = tmp_path / "other"
    shutil.copytree(prepared, other, ignore=shutil.ignore_patterns("shards"))
    whole = (other / "esd.jsonl").read_text()
    # ben is first: he gets row 0
    (other / "esd.jsonl").write_text("\n".join(line for line in whole.split("\n") if '"b"' in line))
    assert commands("job.prepare", other).returncode == 0
    (other / "esd.jsonl").write_text(whole)
    assert commands("job.prepare", other).returncode == 0
    speakers = json.loads((other / "shards/manifest.json").read_text())["speakers"]
    assert speakers == {"b": 0, "a": 1}
    options = ("--split", "train", "--shards", other / "shards")
    assert scores(call, at, tmp_path / "second", *options) == pytest.approx(expected, rel=1e-4)

    # as scored by number, which this run's own names would be
    swapped = checkpoint(tmp_path / "swapped", prepared / "shards", {"b": 0, "a": 1})
    third = scores(call, swapped, tmp_path / "third", "--split", "train")
    assert third != pytest.approx(expected, rel=1e-4)

    alone = checkpoint(tmp_path / "alone", prepared / "shards", {"a": 0, "c": 1})
    message = error_of(call("job.evaluate", "--checkpoint", alone, *options))
    assert "the checkpoint does not know the speaker b of the split train" in message
    assert "it has a, c" in message


@pytest.mark.medium
def test_evaluate_refuses_shards_of_other_settings(prepared, commands, call, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(prepared, other, ignore=shutil.ignore_patterns("shards"))
    done = commands("job.prepare", other, data__peak=0.9, data__max_seconds=10.0)
    assert done.returncode == 0, done.stderr
    at = checkpoint(tmp_path, other / "shards", {"a": 0, "b": 1})
    message = error_of(call("job.evaluate", "--checkpoint", at, "--split", "train"))
    assert "data.peak 0.9, the configuration has None" in message
    assert "data.max_seconds 10.0, the configuration has 20.0" in message
    # which lines another corpus is made of is its own affair, not what its rows hold
    options = ("--split", "train", "--shards", other / "shards")
    message = error_of(call("job.evaluate", "--checkpoint", at, *options))
    assert "data.peak 0.9" in message
    assert "max_seconds" not in message


@pytest.mark.medium
def test_speakers_have_the_rows_that_are_given_and_keep_them(commands, tmp_path):
    """Also those without a line, and gaps; the others follow."""
    write_corpus(tmp_path, "baab")
    given = '{"zoe": 0, "b": 5}'
    assert commands("job.prepare", tmp_path, data__speakers=given).returncode == 0
    numbers = {"zoe": 0, "b": 5, "a": 6}
    assert read_manifest(str(tmp_path / "shards")).speakers == numbers
    write_corpus(tmp_path, "baabc")
    assert commands("job.prepare", tmp_path).returncode == 0
    assert read_manifest(str(tmp_path / "shards")).speakers == numbers | {"c": 7}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"a": 4}', r"data\.speakers gives a the row 4, but in .* a has the row 0, which stays"),
        ('{"kim": 0}', r"data\.speakers gives kim the row 0, but in .* a has it, which stays"),
    ],
)
def test_rows_that_the_shards_do_not_have_are_refused(prepared, commands, given, message):
    assert re.search(message, error_of(commands("job.prepare", prepared, data__speakers=given)))
    told = error_of(commands("job.train", prepared, data__speakers=given))
    assert re.search(r"was prepared with data\.speakers\.\w+ (0|no row), the configuration", told)
    assert not (prepared / "runs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"a": 8}', r"data\.speakers\.a is 8, but model\.n_speakers is 8: raise it to 9"),
        ('{"a": 0, "b": 0}', r"data\.speakers gives a and b the row 0"),
        ('{"a": -1}', r"data\.speakers\.a is -1: give a whole number from 0"),
        ('{" a": 0}', r"data\.speakers\. a has a name that no list has, .*: write a"),
    ],
)
def test_rows_that_no_table_has_are_refused(prepared, commands, given, message):
    done = commands("job.train", prepared, data__speakers=given, model__n_speakers=8)
    assert re.search(message, error_of(done))
