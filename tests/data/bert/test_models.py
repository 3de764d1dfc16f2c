"""The models of a configuration; missing `random` ones are made, the same everywhere."""

from dataclasses import replace
from pathlib import Path

import pytest

from data.bert.models import bert_features, bert_source, front_end
from data.config import BertConfig, DataConfig
from data.text.front_end import hash_files


def random_models(folder: Path) -> DataConfig:
    bert = BertConfig(zh="random", jp="random", en="random", random_width=16)
    return DataConfig(shards=str(folder), bert=bert)


def content(folder: str) -> str:
    return hash_files(sorted(path for path in Path(folder).iterdir() if path.is_file()))


def test_random_models_are_the_same_everywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    first = random_models(tmp_path / "a")
    second = random_models(tmp_path / "b")

    for language in ("EN", "JP"):
        folder, revision = bert_source(first, language)
        assert revision is None
        assert Path(folder).parent == tmp_path / "a/bert"
        assert content(folder) == content(bert_source(second, language)[0])

    remote, _ = bert_source(replace(first, shards="s3://bucket/shards"), "JP")
    assert (tmp_path / "temporary") in Path(remote).parents
    assert (Path(remote) / "config.json").is_file()


def test_random_english_reads_whole_words(tmp_path) -> None:
    phonemes = front_end(random_models(tmp_path), "EN")("This voice was trained a minute ago.")
    assert phonemes.bert_tokens is not None
    assert "▁voice" in phonemes.bert_tokens

    features = bert_features(random_models(tmp_path), "EN")
    assert features([phonemes])[0].shape == (len(phonemes.word2ph), 16)


@pytest.mark.medium
def test_zeros_stand_for_no_bert(tmp_path):
    """The phones are those of the random models; the features are all 0."""
    said = {"ZH": "今天天气真不错。", "JP": "おはようございます。", "EN": "Good morning."}
    found = {}
    for kind in ("random", "zeros"):
        bert = BertConfig(zh=kind, jp=kind, en=kind, random_width=16)
        cfg = DataConfig(shards=str(tmp_path / "shards"), bert=bert)
        for language, text in said.items():
            phonemes = front_end(cfg, language)(text)
            model = bert_features(cfg, language)
            (features,) = model([phonemes])
            found[kind, language] = phonemes.phones, features.shape, model.identity
            assert bool(features.any()) == (kind == "random")
    for language in said:
        phones, shape, identity = found["zeros", language]
        assert (phones, shape) == found["random", language][:2]
        assert identity != found["random", language][2]
