"""The table of languages: what published weights fix, and what a language more changes."""

import re
from dataclasses import fields, replace

import pytest

from data.config import BertConfig, BertSource
from data.text.front_end import get_front_end, to_sequence
from data.text.languages import LANGUAGES, PUBLISHED, count_tones, find, register
from data.text.marked import Part, marked, parse, sentences
from data.text.symbols import SYMBOLS, first_tone, language_id, phone_ids, symbols, tone_ids
from tests.toy_language import KOREAN, korean
from trainable.learning.optimizer import projections


def test_published_languages_are_as_their_weights_have_them():
    assert [own.code for own in PUBLISHED] == list(LANGUAGES) == ["ZH", "JP", "EN"]
    assert [own.tones for own in PUBLISHED] == [6, 2, 4]
    names = ["bert_proj", "ja_bert_proj", "en_bert_proj"]
    assert [own.projection for own in PUBLISHED] == names
    assert [own.freeze_name for own in PUBLISHED] == ["zh_bert", "jp_bert", "en_bert"]
    assert list(projections().values()) == [f"g.enc_p.{name}.*" for name in names]


@pytest.mark.parametrize("language", PUBLISHED, ids=lambda own: own.code)
def test_every_language_has_a_front_end_and_configuration_keys(language):
    assert get_front_end(language.code).language == language.code
    keys = {field.name for field in fields(BertConfig)}
    assert {language.key, f"revision_{language.key}"} <= keys


def test_a_language_more_shifts_no_number():
    def numbers() -> dict:
        return {
            own.code: (language_id(own.code), first_tone(own.code), tone_ids([1], own.code))
            for own in PUBLISHED
        }

    before, phones = numbers(), phone_ids(SYMBOLS)
    with korean():
        assert numbers() == before
        assert phone_ids(SYMBOLS) == phones
        assert (language_id("KO"), first_tone("KO")) == (3, 12)
        assert phone_ids(["eo", "eu", "g"]) == [112, 113, SYMBOLS.index("g")]
        read = get_front_end("KO")("안녕")
        _, tones, languages = to_sequence(read.phones, read.tones, "KO", add_blank=False)
        assert tones.tolist() == [12, 12, 13, 12, 12, 13, 12, 12]
        assert languages.tolist() == [3] * 8
    with pytest.raises(ValueError, match="unknown language 'KO': use one of ZH, JP, EN"):
        find("KO")
    with pytest.raises(ValueError, match="no such symbol: 'eo'"):
        phone_ids(["eo"])


def test_a_language_more_changes_no_network_that_does_not_ask_for_it():
    with korean():
        assert BertConfig().languages() == PUBLISHED
        asked = BertConfig(others={"KO": BertSource("random", "main")})
        assert asked.languages() == (*PUBLISHED, KOREAN)
        assert asked.model("KO") == ("random", "main")
        assert len(symbols(asked.languages())) == len(SYMBOLS) + 2
        assert count_tones(asked.languages()) == 14
        # between the published ones and one that is asked for: its number is taken all the same
        between = replace(KOREAN, code="QQ", projection="qq_bert_proj", phones=())
        del LANGUAGES["KO"]
        register(between)
        register(KOREAN)
        try:
            assert asked.languages() == (*PUBLISHED, between, KOREAN)
        finally:
            del LANGUAGES["QQ"]


def test_a_language_more_has_a_mark():
    with korean():
        parts = parse("[KO]안녕\n하세요.[en]Hi.")
        assert parts == [Part("KO", "안녕\n하세요."), Part("EN", "Hi.")]
        assert marked(sentences(parts)[0]) == "[KO]안녕 하세요."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "EN"}, "language EN is there already"),
        ({"code": "ko"}, "language 'ko': its code must be capital letters A to Z"),
        ({"projection": "bert_proj"}, "language KO: ZH has the projection bert_proj too"),
    ],
)
def test_a_declaration_that_clashes_is_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        register(replace(KOREAN, **change))
    assert "KO" not in LANGUAGES


def test_models_of_languages_are_refused_by_key():
    with pytest.raises(ValueError, match=r"data\.bert\.others\.KO: no such language"):
        BertConfig(others={"KO": BertSource("random")})
    with pytest.raises(ValueError, match=r"data\.bert\.others\.EN: set data\.bert\.en instead"):
        BertConfig(others={"EN": BertSource("random")})
    with korean(), pytest.raises(ValueError, match=r"data\.bert\.others\.KO is not set"):
        BertConfig().model("KO")


def test_paths_of_all_models_can_be_changed():
    with korean():
        bert = BertConfig(zh="a", jp="b", en="c", others={"KO": BertSource("d", "main")})
        changed = bert.with_paths("/models/{}".format)
        assert changed.zh == "/models/a"
        assert changed.model("KO") == ("/models/d", "main")
        assert hash(changed) is not None  # configurations are keys of caches
