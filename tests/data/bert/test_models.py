"""The models of a configuration; missing `random` ones are made, the same everywhere."""

from dataclasses import replace
from pathlib import Path

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
