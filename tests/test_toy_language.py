"""A language declared in one place is prepared, trained, saved, resumed, evaluated, and logged.

Without Ray, by the functions that the commands use.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from data.bert.reading import TextReader
from data.config import BertConfig, BertSource, DataConfig
from data.corpus.prepare import prepare
from data.plan.epoch_plan import Position
from data.shards.manifest import Manifest
from data.stream.collate import to_batch
from data.stream.evaluation import EvaluationUtterance
from data.stream.loading import RowLoader
from data.text.languages import LANGUAGES, units
from data.text.marked import parse
from job.settings.cli import read_config, to_yaml
from job.settings.config import Config
from job.settings.paths import with_absolute_paths
from job.voice.voice import SpeechRequest, Voice
from tests.data.corpus.without_ray import without_ray
from tests.tiny import tiny_config, tiny_state
from tests.toy_language import korean
from trainable.evaluation.evaluate import evaluate
from trainable.evaluation.sentences import read_sentences, speak
from trainable.learning.optimizer import freeze
from trainable.learning.state import TrainState
from trainable.learning.step import TrainingStep
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointInfo
from trainable.run.records import RunLog
from trainable.weights.published import Published
from trainable.weights.warm_start import fit

RATE = 44100
TEXTS = (("KO", "안녕하세요"), ("EN", "Good morning."), ("KO", "고마워"), ("EN", "Yes."))
WIDTH = 16


@pytest.fixture(scope="module")
def table() -> Iterator[None]:
    with korean():
        yield


@pytest.fixture(scope="module")
def cfg(table, tmp_path_factory) -> Config:
    """The demo's sizes, with a corpus of two languages, one of which is the toy."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    lines = []
    for number, (language, text) in enumerate(TEXTS):
        wave = np.random.default_rng(number).uniform(-0.3, 0.3, int((1.5 - 0.1 * number) * RATE))
        soundfile.write(folder / f"{number}.wav", wave, RATE)
        lines.append(f"{number}.wav|{language.lower()}|{language}|{text}")
    (folder / "esd.list").write_text("\n".join(lines), encoding="utf-8")
    bert = BertConfig(
        *["random"] * 3, others={"KO": BertSource("random")}, random_width=WIDTH, inactive="noise"
    )
    cfg = tiny_config(micro_batches_per_step=1)
    data = replace(
        cfg.data, transcript=str(folder / "esd.list"), shards=str(folder / "out"), bert=bert
    )
    return replace(cfg, data=data, model=replace(cfg.model, bert_channels=WIDTH))


@dataclass
class Prepared:
    manifest: Manifest
    loader: RowLoader


@pytest.fixture(scope="module")
def prepared(cfg) -> Prepared:
    """What job.prepare makes, by its parts that need no Ray."""
    data: DataConfig = cfg.data
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        manifest = prepare(data)
    assert len(manifest) == len(TEXTS)
    return Prepared(manifest, RowLoader(manifest, data, min_frames=8))


def batch_of(cfg: Config, prepared: Prepared, rows: list[int]):
    loaded = prepared.loader.load(np.array(rows))
    assert not loaded.error
    return to_batch(loaded.arrays, bert_config=cfg.data.bert).with_spectrogram(cfg.data)


@pytest.fixture(scope="module")
def trained(cfg, prepared) -> tuple[TrainState, list[dict[str, float]]]:
    state = tiny_state(cfg)
    step, told = TrainingStep(state, cfg.train, cfg.data), []
    for number in range(2):
        report = step([(0, batch_of(cfg, prepared, [0, 1, 2, 3]))])
        told.append({tag: value.item() for tag, value in report.scalars.items()})
        state.position = Position(number + 1, 0, number + 1)
    return state, told


@pytest.fixture(scope="module")
def checkpoint(cfg, prepared, trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    state, _ = trained
    versions = {"torch": torch.__version__}
    info = CheckpointInfo(state.position, "", "", versions, prepared.manifest.speakers, 1)
    save_checkpoint(folder, state, info, to_yaml(cfg))
    return folder


def test_features_reach_the_languages_place(cfg, prepared):
    batch = batch_of(cfg, prepared, [0])
    own = int(batch.language.max())
    assert own == {"KO": 3, "EN": 2}[prepared.manifest.column("language")[0]]
    zeros = replace(batch, bert_config=replace(cfg.data.bert, inactive="zeros"))
    assert [bool(part.any()) for part in zeros.bert_features()] == [i == own for i in range(4)]
    assert all(part.std() > 0.5 for part in batch.bert_features()[:2])  # noise


def test_it_trains(trained):
    state, told = trained
    for line in told:
        assert np.isfinite([line[tag] for tag in line if tag.endswith("/total")]).all()
    encoder = state.nets["g"].enc_p
    assert encoder.language_emb.num_embeddings == 4
    assert encoder.tone_emb.num_embeddings == 14
    assert encoder.emb.num_embeddings == 114
    moved = state.optimizers["g"].state[encoder.ko_bert_proj.weight]["exp_avg"]
    assert moved.any()
    assert state.optimizers["g"].state[encoder.language_emb.weight]["exp_avg"][3].any()


@pytest.mark.medium
def test_it_is_resumed_with_the_same_bits(cfg, prepared, trained, checkpoint):
    state, _ = trained
    again = tiny_state(read_config(checkpoint / "config.yaml"))
    info = load_checkpoint(checkpoint, again)
    again.position = info.position
    assert again.digest() == state.digest()
    assert info.position.step == 2


@pytest.mark.medium
def test_it_is_evaluated_and_logged(cfg, prepared, trained, tmp_path):
    g, heard = trained[0].nets["g"], []

    def count_units(wave, sampling_rate, utterance, recording) -> float:
        heard.append(units(utterance.text, utterance.language))
        return float(len(heard[-1]))

    languages = prepared.manifest.column("language").tolist()
    rows = [languages.index("KO"), languages.index("EN")]
    set_of = [
        EvaluationUtterance(
            i, row, batch_of(cfg, prepared, [row]), prepared.loader.text(row), languages[row]
        )
        for i, row in enumerate(rows)
    ]
    cfg_eval = replace(cfg.eval, syntheses=2, samples=1, max_frames=60)
    result = evaluate(g, set_of, 2, cfg_eval, cfg.data, 7, {"units": count_units})
    means = result.means(groups=[languages[row] for row in rows])
    assert {"eval/mel/KO", "eval/mel/EN", "eval/units/KO", "eval/mcd_sdp/KO"} <= means.keys()
    assert heard[0] == list(set_of[0].text)  # its characters

    sentences = read_sentences({"KO": "안녕"}, cfg.data, prepared.manifest)
    assert [sentence.tag for sentence in sentences] == ["sentence/KO_ko"]
    sound = speak(g, sentences[0], cfg.data.bert, 7, 60)
    assert np.isfinite(sound).all()
    records = RunLog(str(tmp_path), resume_step=0, writes=True)
    records.evaluation(2, means, result.samples, {sentences[0].tag: sound}, RATE)
    records.close()
    (events,) = (tmp_path / "tensorboard/eval").iterdir()
    assert b"eval/mel/KO" in events.read_bytes()
    assert b"sentence/KO_ko" in events.read_bytes()


@pytest.mark.medium
def test_it_is_spoken_beside_others(cfg, checkpoint):
    voice = Voice.load(checkpoint)
    wave = voice.say(SpeechRequest("[KO]안녕.[EN]Good morning.", "ko"))
    assert len(wave)
    assert np.isfinite(wave).all()
    reading = TextReader(voice.data)(parse("[KO]안녕[EN]Yes."))
    assert set(reading.spoken) == {2, 3}


def test_its_projection_can_be_frozen(cfg, trained):
    g = tiny_state(cfg).nets["g"]
    freeze({"g": g}, ("ko_bert",))
    frozen = {name for name, p in g.named_parameters() if not p.requires_grad}
    assert frozen == {"enc_p.ko_bert_proj.weight", "enc_p.ko_bert_proj.bias"}


def test_paths_of_its_model_are_made_absolute(cfg, tmp_path, monkeypatch):
    (tmp_path / "models/ko").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    bert = replace(cfg.data.bert, others={"KO": BertSource("models/ko")})
    moved = with_absolute_paths(replace(cfg, data=replace(cfg.data, bert=bert)))
    assert moved.data.bert.model("KO")[0] == str(tmp_path / "models/ko")
    assert moved.data.bert.zh == "random"


def test_a_run_without_it_is_extended_by_it(cfg):
    """Weights of three languages start a network of four: their rows stay, its projection is 0."""
    three = tiny_state(replace(cfg, data=replace(cfg.data, bert=BertConfig(*["random"] * 3))))
    before: nn.Module = three.nets["g"]
    after: nn.Module = tiny_state(cfg).nets["g"]
    file = Published(before.state_dict(), None, None, 0)
    fitted = fit(file, after, "G", optimizer=False)
    whole = fitted.published
    for table, rows in (("emb", 112), ("tone_emb", 12), ("language_emb", 3)):
        key = f"enc_p.{table}.weight"
        assert torch.equal(whole.weights[key][:rows], before.state_dict()[key])
        assert torch.equal(whole.weights[key][rows:], after.state_dict()[key][rows:])
        assert any(f"{key} has {rows} rows" in line for line in fitted.report)
    assert not whole.weights["enc_p.ko_bert_proj.weight"].any()


def test_initial_weights_of_a_run_without_it_stay(cfg, monkeypatch):
    """However many languages the table has, a configuration of three gives the same bits."""
    three = replace(cfg, data=replace(cfg.data, bert=BertConfig(*["random"] * 3)))
    with_it = tiny_state(three).digest()
    monkeypatch.delitem(LANGUAGES, "KO")
    assert tiny_state(three).digest() == with_it
