"""What a row's key depends on."""

from dataclasses import replace
from pathlib import Path

import pytest

from data.bert.tiny import make_tiny_bert
from data.config import BertConfig, DataConfig
from data.corpus.recipe import Recipe, make_recipe
from data.text.english import front_end as english
from data.text.english.front_end import EnglishFrontEnd

RECIPE = Recipe(
    settings={"sampling_rate": 44100, "hop_length": 512, "peak": None},
    front_ends={"EN": "en-1 abc", "ZH": "zh-1 abc"},
    berts={"EN": "one", "ZH": "one"},
    max_tokens={"EN": None, "ZH": 512},
    bert_width=16,
)
ROW = {
    "utterance": "a.wav",
    "text": "One.",
    "language": "EN",
    "speaker": "anna",
    "audio": b"samples",
}


def random_models(folder: Path, **changes) -> DataConfig:
    return DataConfig(
        shards=str(folder),
        bert=BertConfig(zh="random", jp="random", en="random", random_width=16, **changes),
    )


def test_key_depends_on_all_of_the_row() -> None:
    keys = {RECIPE.key(**ROW)}
    keys |= {RECIPE.key(**{**ROW, name: "other"}) for name in ("utterance", "text", "speaker")}
    keys |= {RECIPE.key(**{**ROW, "audio": b"others"}), RECIPE.key(**{**ROW, "language": "ZH"})}
    assert len(keys) == 6
    assert RECIPE.key(**ROW) in keys


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {**RECIPE.settings, "sampling_rate": 22050}},
        {"settings": {**RECIPE.settings, "peak": 0.95}},
        {"front_ends": {**RECIPE.front_ends, "EN": "en-2 abc"}},
        {"berts": {**RECIPE.berts, "EN": "two"}},
    ],
)
def test_key_depends_on_settings_front_end_and_bert(change: dict) -> None:
    assert replace(RECIPE, **change).key(**ROW) != RECIPE.key(**ROW)


def test_key_depends_on_the_front_ends_version_and_data(tmp_path, monkeypatch) -> None:
    cfg = random_models(tmp_path)
    keys = {make_recipe(cfg, ["EN"]).key(**ROW)}
    monkeypatch.setattr(EnglishFrontEnd, "version", "en-other")
    keys.add(make_recipe(cfg, ["EN"]).key(**ROW))
    (tmp_path / "words").write_bytes(b"another dictionary")
    monkeypatch.setattr(english, "DICTIONARY_FILE", tmp_path / "words")
    keys.add(make_recipe(cfg, ["EN"]).key(**ROW))
    assert len(keys) == 3


def test_another_language_changes_nothing() -> None:
    other = replace(RECIPE, front_ends={"EN": "en-1 abc"}, berts={"EN": "one", "ZH": "two"})
    assert other.key(**ROW) == RECIPE.key(**ROW)


def test_random_models_give_the_same_recipe_everywhere(tmp_path) -> None:
    first, second = random_models(tmp_path / "a"), random_models(tmp_path / "b")
    assert make_recipe(first, ["EN", "JP"]) == make_recipe(second, ["EN", "JP"])


def test_models_of_different_width_are_refused(tmp_path) -> None:
    wide = make_tiny_bert(tmp_path / "wide", "JP", ["おはよう"], width=32)
    cfg = random_models(tmp_path)
    with pytest.raises(ValueError, match=r"data\.bert\.jp: 32"):
        make_recipe(replace(cfg, bert=replace(cfg.bert, jp=str(wide))), ["EN", "JP"])


def test_no_language_is_no_error(tmp_path) -> None:
    assert make_recipe(random_models(tmp_path), []).bert_width == 0


def test_settings_that_a_row_depends_on_change_its_key(tmp_path) -> None:
    base = random_models(tmp_path)
    stored = replace(base, spectrogram_on="shards")

    def key(cfg: DataConfig) -> str:
        return make_recipe(cfg, ["ZH"]).key(**{**ROW, "language": "ZH"})

    changes = (
        {"sampling_rate": 22050},
        {"hop_length": 256},
        {"peak": 0.9},
        {"loudness": -23.0},
        {"trim_db": 40.0},
    )
    changed = [replace(base, **change) for change in changes]
    changed += [stored, replace(stored, filter_length=4096), replace(stored, win_length=1024)]
    changed += [replace(base, trim_db=40.0, trim_margin=0.2)]
    assert len({key(cfg) for cfg in (base, *changed)}) == 1 + len(changed)
    # nothing in a row follows from these
    assert key(base) == key(
        replace(base, filter_length=1024, win_length=1024, trim_margin=0.2, n_mel_channels=80)
    )
