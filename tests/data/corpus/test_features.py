"""The second pass without Ray: each row gets its own features, and its spectrogram if wanted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from data.config import BertConfig, DataConfig
from data.corpus import features
from data.corpus.features import BertActor, shard_block
from data.corpus.recipe import make_recipe
from data.corpus.survey import Surveyor, judge
from data.corpus.tables.shard_rows import HeldRows
from data.corpus.transcript import read_transcript
from data.corpus.writer import write_rows
from data.shards.shard import ShardReader
from data.text.front_end import Phonemes
from data.text.languages import LANGUAGES
from tests.data.corpus.without_ray import survey_here

RATE = 44100
TEXTS = [
    ("EN", "A rather long sentence, which has more tokens than the others."),
    ("ZH", "早上好，今天下雨。"),
    ("EN", "Yes."),
    ("EN", "Good morning, everybody."),
    ("ZH", "好。"),
]


@pytest.fixture(scope="module")
def cfg(tmp_path_factory) -> DataConfig:
    folder: Path = tmp_path_factory.mktemp("corpus")
    lines = []
    for number, (language, text) in enumerate(TEXTS):
        samples = int((2.5 - 0.2 * number) * RATE)
        wav = np.random.default_rng(number).uniform(-0.3, 0.3, samples)
        soundfile.write(folder / f"{number}.wav", wav, RATE)
        lines.append(f"{number}.wav|anna|{language}|{text}")
    (folder / "esd.list").write_text("\n".join(lines), encoding="utf-8")
    bert = BertConfig(zh="random", jp="random", en="random", random_width=16)
    return DataConfig(transcript=str(folder / "esd.list"), shards=str(folder / "out"), bert=bert)


def survey(cfg: DataConfig) -> pa.Table:
    """Return the block of the corpus' only shard."""
    transcript = read_transcript(cfg.transcript)
    surveyed = survey_here(transcript, Surveyor(cfg, make_recipe(cfg, LANGUAGES)))
    _, rows = judge(cfg, transcript, surveyed, HeldRows())
    return shard_block(rows, rows.new)


def test_batches_are_of_like_length_and_rows_keep_their_own_features(cfg, monkeypatch) -> None:
    monkeypatch.setattr(features, "TEXTS_PER_BATCH", 2)
    actor = BertActor(cfg, "cpu")
    batches = []
    compute = actor._features

    def watch(language: str, rows: pa.Table) -> list[np.ndarray]:
        batches.append((language, [len(word2ph) for word2ph in rows.column("word2ph").to_pylist()]))
        return compute(language, rows)

    monkeypatch.setattr(actor, "_features", watch)
    made = actor(survey(cfg)).to_pylist()

    assert [language for language, _ in batches] == ["EN", "EN", "ZH"]
    for language in ("EN", "ZH"):
        tokens = [n for other, lengths in batches if other == language for n in lengths]
        assert tokens == sorted(tokens)

    names = [field.name for field in features.fields(Phonemes)]
    for row in made:
        found = np.frombuffer(row["bert"], np.float16).reshape(-1, row["bert_width"])
        (alone,) = actor.models[row["language"]]([Phonemes(**{name: row[name] for name in names})])
        np.testing.assert_allclose(found.astype(np.float32), alone.astype(np.float32), atol=2e-3)


@pytest.mark.medium
@pytest.mark.parametrize("where", ["pipeline", "shards"])
def test_spectrograms_are_stored_where_they_are_asked_for(cfg, tmp_path, where: str) -> None:
    cfg = replace(cfg, shards=str(tmp_path), spectrogram_on=where)
    rows = BertActor(cfg, "cpu")(survey(cfg))
    places = write_rows(rows, cfg, make_recipe(cfg, LANGUAGES)).to_pylist()
    assert [place["row"] for place in places] == list(range(len(TEXTS)))
    row = ShardReader(str(tmp_path)).row(places[0]["shard"], 0)
    assert len(row["spec"]) == (1025 * row["frames"] * 4 if where == "shards" else 0)
