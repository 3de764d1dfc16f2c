"""Japanese: numbers, kana to phones, accents, and the choice of the engine."""

import importlib.metadata

import pytest

from data.text.front_end import FrontEndError
from data.text.japanese import front_end as japanese
from data.text.japanese.front_end import JapaneseFrontEnd, normalise
from data.text.japanese.kana import moras
from data.text.japanese.numbers import spell_numbers

READ = JapaneseFrontEnd(normaliser="reference")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "零"),
        ("10", "十"),
        ("11", "十一"),
        ("365", "三百六十五"),
        ("1,024", "千二十四"),
        ("10000", "一万"),
        ("100001000", "一億千"),
        ("3.14", "三点一四"),
        ("0.50", "零点五"),
        ("¥12,800", "一万二千八百円"),
        ("$25.50", "二十五点五ドル"),
        ("9" * 30, "九" * 30),
        ("1,2", "一,二"),
    ],
)
def test_spell_numbers(number, words):
    assert spell_numbers(number) == words


@pytest.mark.parametrize(
    ("text", "normalised"),
    [("「はい」、ＮＨＫ・１％。", "'はい',,一."), ("ｱﾊﾟｰﾄ ～", "アパート-"), ("あ゛ー", "あー")],
)
def test_normalise(text, normalised):
    assert normalise(text) == normalised


@pytest.mark.parametrize(
    ("kana", "phones"),
    [
        ("キョー", [["ky", "o"], ["ー"]]),
        ("ガッコン", [["g", "a"], ["q"], ["k", "o"], ["n"]]),
        ("ファ’ティ", [["f", "a"], ["t", "i"]]),
        ("ヂヅヲ", [["j", "i"], ["z", "u"], ["o"]]),
        ("ヴァ", [["b", "a"]]),
        ("、", []),
    ],
)
def test_moras(kana, phones):
    assert list(moras(kana)) == phones


def test_a_word_shares_its_phones_among_its_characters():
    result = READ("天気、コーヒー。")
    assert " ".join(result.phones) == "_ t e n k i , k o o h i i . _"
    assert result.word2ph == [1, 3, 2, 1, 2, 2, 1, 1, 1, 1]


def test_pitch_falls_after_the_accent():
    result = READ("箸。橋。")
    assert [(phone, tone) for phone, tone in zip(result.phones, result.tones, strict=True)][
        1:5
    ] == [
        ("h", 1),
        ("a", 1),
        ("sh", 0),
        ("i", 0),
    ]
    assert result.tones[6:10] == [0, 0, 1, 1]


def test_too_long_for_open_jtalk():
    with pytest.raises(FrontEndError) as caught:
        READ("今日は" * 1000)
    assert caught.value.reason == "text_too_long"


def test_no_such_engine():
    with pytest.raises(ValueError, match="'mecab'"):
        JapaneseFrontEnd(engine="mecab")


@pytest.fixture
def uncached():
    japanese._open_jtalk.cache_clear()
    yield
    japanese._open_jtalk.cache_clear()


@pytest.mark.parametrize(
    ("engine", "installed", "dictionary", "problem"),
    [
        ("strict", {"pyopenjtalk-plus"}, "", "pyopenjtalk is not installed"),
        ("strict", {"pyopenjtalk", "pyopenjtalk-plus"}, "", "both installed"),
        ("strict", {"pyopenjtalk"}, "/no/such/folder", "/no/such/folder names no folder"),
        ("plus", {"pyopenjtalk"}, "", "pyopenjtalk-plus is not installed"),
        ("plus", {"pyopenjtalk-plus"}, "/some/folder", "replaces its dictionary"),
    ],
)
def test_an_engine_that_is_not_there_is_refused(
    uncached, monkeypatch, engine, installed, dictionary, problem
):
    def version(package):
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(japanese, "version", version)
    monkeypatch.setenv("OPEN_JTALK_DICT_DIR", dictionary)
    with pytest.raises(ValueError, match=problem) as caught:
        JapaneseFrontEnd(engine=engine)
    assert "pip install" in str(caught.value)
