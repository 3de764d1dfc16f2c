"""Mandarin: numbers, pinyin to symbols, and tone sandhi by its rules."""

import pytest

from data.text.chinese.front_end import ChineseFrontEnd, normalise
from data.text.chinese.words import split_syllable

READ = ChineseFrontEnd(normaliser="reference")


def tones(text):
    """A tone a character."""
    result = READ(text)
    return "".join(str(tone) for tone in result.tones[1:-1:2])


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("共12个。", "共十二个."),
        ("他说：“好！”", "他说'好!'"),
        ("這個問題", "这个问题"),
        ("a b好c", "好"),
        ("好……吗", "好……吗"),
        ("等等...", "等等…"),
    ],
)
def test_normalise(text, normalised):
    assert normalise(text) == normalised


@pytest.mark.parametrize(
    ("syllable", "phones"),
    [
        ("zhi", ("zh", "ir")),
        ("si", ("s", "i0")),
        ("yan", ("y", "En")),
        ("ye", ("y", "E")),
        ("yue", ("y", "ve")),
        ("yuan", ("y", "van")),
        ("yu", ("y", "v")),
        ("you", ("y", "ou")),
        ("ju", ("j", "v")),
        ("lv", ("l", "v")),
        ("lve", ("l", "ve")),
        ("liu", ("l", "iu")),
        ("wu", ("w", "u")),
        ("er", ("EE", "er")),
        ("ai", ("AA", "ai")),
        ("ou", ("OO", "ou")),
    ],
)
def test_split_syllable(syllable, phones):
    assert split_syllable(syllable) == phones


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("不对", "24"),
        ("不好", "43"),
        ("好不好", "353"),
        ("一样", "24"),
        ("一起", "43"),
        ("看一看", "454"),
        ("第一名", "412"),
        ("你好", "23"),
        ("展览馆", "223"),
        ("桌子", "15"),
        ("女子", "23"),
        ("妈妈", "15"),
        ("人人", "22"),
        ("我们", "35"),
        ("走吧", "35"),
        ("三个", "15"),
        ("个人", "42"),
        ("上个月", "444"),
        ("拿出来", "215"),
        ("葡萄", "25"),
        ("不是不可能", "24432"),
        ("看不见", "454"),
        ("不怎么样", "4355"),
        ("一个人", "252"),
        ("一点儿", "432"),
        ("一千零一夜", "41224"),
        ("走下去", "345"),
        ("商量商量", "1515"),
        ("计划", "45"),
        ("电子", "45"),
        ("小雨伞", "323"),
        ("蒙古包", "231"),
        ("洗脸水", "223"),
        ("我很想买", "2323"),
    ],
)
def test_sandhi(text, expected):
    assert tones(text) == expected


def test_two_phones_a_character_and_one_a_mark():
    result = READ("好，走。")
    assert result.word2ph == [1, 2, 1, 2, 1, 1]
    assert result.bert_tokens == list(result.bert_text) == ["好", ",", "走", "."]
