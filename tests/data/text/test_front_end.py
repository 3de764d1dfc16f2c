"""What holds for every language's front end, and for the way from phones to the network's input."""

import importlib.metadata
import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.rejected import Reason
from data.text.front_end import (
    NORMALISERS,
    REASONS,
    FrontEndError,
    Phonemes,
    expand_word2ph,
    get_front_end,
    share_out,
    to_sequence,
    validate,
)
from data.text.languages import LANGUAGES
from data.text.symbols import PUNCTUATION, SYMBOLS, language_id

# what the front ends treat specially, so that random texts come across it
SPECIAL = (
    "不一子儿了着过个第零二三上下里来去们老李好想你我请给水果呣嗯嘛薄得地ー。"
    "、！？…—“”‘’《》（）()[]{}~～ 　\n\r\t\0\u200b"
    "%％¥￥$£€℃①Ⅳ½年月日時分秒ゝ々〆〇龘䶮㐀ぁァヴヷッんンヮｱﾞ゛é\u0301ûñ😀👩\u200d👧abcXYZ'-.,:;/&@#0123456789"
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet=SPECIAL, max_size=40),
    st.text(alphabet="0123456789.,:-/%年月日点$¥£ a", max_size=20),
)
SAID = {"ZH": "今天天气很好。", "JP": "今日はいい天気です。", "EN": "It's a fine day."}


def check_unread(text: str, unread: str) -> None:
    """What no rule reads are characters of the text: never more, and no space."""
    assert all(not char.isspace() for char in unread)
    assert len(unread) <= sum(not char.isspace() for char in unicodedata.normalize("NFKD", text))


@pytest.mark.medium
@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_any_text_has_phones_or_a_reason(language, normaliser):
    front_end = get_front_end(language, normaliser=normaliser)

    @settings(max_examples=300, deadline=None)
    @given(TEXTS)
    def check(text):
        try:
            result = front_end(text)
        except FrontEndError as error:
            assert error.reason in REASONS
            assert error.text == text
            check_unread(text, error.unread)
            return
        check_unread(text, result.unread)
        assert sum(result.word2ph) == len(result.phones) == len(result.tones)
        assert result.phones[0] == result.phones[-1] == "_"
        assert result.word2ph[0] == result.word2ph[-1] == 1
        assert set(result.phones) <= set(SYMBOLS)
        assert all(0 <= tone < LANGUAGES[language].tones for tone in result.tones)
        assert all(
            result.tones[i] == 0 for i, phone in enumerate(result.phones) if phone in PUNCTUATION
        )
        if result.bert_tokens is not None:
            assert len(result.bert_tokens) + 2 == len(result.word2ph)
        phones, tones, languages = to_sequence(result.phones, result.tones, language)
        assert len(phones) == len(tones) == len(languages) == len(expand_word2ph(result.word2ph))
        assert front_end(text) == result

    check()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", ["", " \n", "😂", "🎉🎉", "\u200b"])
def test_nothing_to_say(language, text):
    with pytest.raises(FrontEndError) as caught:
        get_front_end(language)(text)
    assert caught.value.reason == "empty_text"
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("language", "text"),
    [("ZH", "hello"), ("ZH", "こんにちは"), ("JP", "hello"), ("EN", "今天"), ("EN", "はい")],
)
def test_another_language_is_refused(language, text):
    with pytest.raises(FrontEndError) as caught:
        get_front_end(language)(text)
    assert caught.value.reason == "empty_text"


def test_every_reason_is_one_of_the_ledger():
    assert set(REASONS) <= set(Reason)


@pytest.mark.parametrize("language", LANGUAGES)
def test_version_and_data_hash_are_stable(language):
    first, second = get_front_end(language), get_front_end(language)
    assert first.language == language
    assert first.version == second.version
    assert first.data_hash() == second.data_hash()


@pytest.mark.parametrize(
    ("language", "module", "package"),
    [
        ("ZH", "chinese", "wetext"),
        ("ZH", "chinese", "pypinyin"),
        ("ZH", "chinese", "jieba"),
        ("JP", "japanese", "pyopenjtalk-plus"),
        ("EN", "english", "inflect"),
    ],
)
def test_another_version_of_a_package_is_another_hash(monkeypatch, language, module, package):
    front_end = get_front_end(language)
    before = front_end.data_hash()
    installed = importlib.metadata.version
    monkeypatch.setattr(
        f"data.text.{module}.front_end.version",
        lambda name: "another" if name == package else installed(name),
    )
    assert front_end.data_hash() != before


def test_unknown_language_is_named():
    with pytest.raises(ValueError, match="FR"):
        get_front_end("FR")


def phonemes(**changes):
    fields = {
        "norm_text": "a",
        "phones": ["_", "a", "_"],
        "tones": [0, 1, 0],
        "word2ph": [1, 1, 1],
        "bert_text": "a",
        "bert_tokens": ["a"],
    }
    return Phonemes(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phones": ["_", "qq", "_"]}, "unknown_symbol"),
        (
            {"phones": ["_", "_"], "tones": [0, 0], "word2ph": [1, 1], "bert_tokens": []},
            "empty_text",
        ),
        ({"tones": [0, 9, 0]}, "unknown_tone"),
        ({"tones": [0, 1]}, "word2ph_mismatch"),
        ({"word2ph": [1, 2, 1]}, "word2ph_mismatch"),
        ({"word2ph": [2, -1, 2]}, "word2ph_mismatch"),
        ({"bert_tokens": ["a", "b"]}, "bert_token_mismatch"),
    ],
)
def test_validate_says_what_is_wrong(changes, reason):
    with pytest.raises(FrontEndError, match="the text") as caught:
        validate(phonemes(**changes), "ZH", "the text")
    assert caught.value.reason == reason
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (copied.reason, str(copied)) == (reason, str(caught.value))


def test_validate_returns_what_is_right():
    assert validate(phonemes(), "ZH", "a") == phonemes()


@pytest.mark.parametrize("language", LANGUAGES)
def test_blanks_are_between_and_around(language):
    result = get_front_end(language)(SAID[language])
    with_blanks = to_sequence(result.phones, result.tones, language)
    without = to_sequence(result.phones, result.tones, language, add_blank=False)
    for blank, plain in zip(with_blanks, without, strict=True):
        assert len(blank) == 2 * len(plain) + 1
        assert not blank[::2].any()
        assert (blank[1::2] == plain).all()
    assert (without[2] == language_id(language)).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.booleans())
def test_expand_word2ph(word2ph, add_blank):
    given_list = list(word2ph)
    index = expand_word2ph(word2ph, add_blank)
    assert word2ph == given_list
    counts = np.bincount(index, minlength=len(word2ph))
    expected = [2 * count for count in word2ph] if add_blank else word2ph
    assert (counts == [expected[0] + add_blank, *expected[1:]]).all()
    assert (np.diff(index) >= 0).all()


def test_expand_word2ph_leaves_an_array_as_it_is():
    word2ph = np.array([1, 2, 1])
    assert len(expand_word2ph(word2ph)) == 9
    assert len(expand_word2ph(word2ph)) == 9
    assert word2ph.tolist() == [1, 2, 1]


@pytest.mark.parametrize("word2ph", [[], [1, -1]])
def test_expand_word2ph_refuses(word2ph):
    with pytest.raises(ValueError, match="word2ph"):
        expand_word2ph(word2ph)


@given(st.integers(0, 50), st.integers(1, 20))
def test_share_out_is_even(phones, tokens):
    shares = share_out(phones, tokens)
    assert sum(shares) == phones
    assert shares == sorted(shares, reverse=True)
    assert max(shares) - min(shares) <= 1
