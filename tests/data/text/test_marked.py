"""Marks of languages in a text, and its sentences."""

import pytest

from data.text.marked import LONGEST_SENTENCE, Part, marked, parse, sentences


def cut(text: str, language: str | None = None) -> list[str]:
    """Sentences; those of one language without its mark."""
    return [
        parts[0].text if len(parts) == 1 else marked(parts)
        for parts in sentences(parse(text, language))
    ]


def test_marks_hold_until_the_next_one():
    assert parse("早。[EN] Hi. [jp]はい。", "ZH") == [
        Part("ZH", "早。"),
        Part("EN", " Hi. "),
        Part("JP", "はい。"),
    ]
    # marks around each part, as some write them
    assert parse("[ZH]早。[ZH][EN]Hi.[EN]") == [Part("ZH", "早。"), Part("EN", "Hi.")]
    assert parse("a [OK] b", "EN") == [Part("EN", "a [OK] b")]
    parts = parse("[ZH]早。[EN]Hi.")
    assert parse(marked(parts)) == parts


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        (
            "Hi. [ZH]早。",
            None,
            r"the language of 'Hi. ' is not known: "
            r"give a language \(ZH, JP, EN\) or a mark before it",
        ),
        ("Hi.", "FR", "no language 'FR'; choose of ZH, JP, EN"),
        ("[ZH] ", None, "nothing to say"),
        ("", "EN", "nothing to say"),
    ],
)
def test_mistakes_say_what_to_change(text, language, message):
    with pytest.raises(ValueError, match=message):
        parse(text, language)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "EN",
            "Mr. J. Doe paid 3.50 dollars. Why? No... idea!",
            ["Mr. J. Doe paid 3.50 dollars.", "Why?", "No...", "idea!"],
        ),
        ("EN", 'He said "Go." She went.', ['He said "Go."', "She went."]),
        (
            "EN",
            "One line\nand another.\n\nA title\n\nText",
            ["One line and another.", "A title", "Text"],
        ),
        ("ZH", "你好！他说：“走吧。”\n好的", ["你好！", "他说：“走吧。”", "好的"]),
        ("JP", "はい。「行こう！」と彼は\n言った。", ["はい。", "「行こう！」と彼は言った。"]),
        ("JP", "「行こう！」彼は言った。", ["「行こう！」", "彼は言った。"]),
        ("EN", "Hello. ...", ["[EN]Hello.[EN]..."]),
        ("EN", "...", ["..."]),
    ],
)
def test_sentences(language, text, expected):
    assert cut(text, language) == expected


def test_a_sentence_may_hold_several_languages():
    assert cut("[EN]He said [JP]はい[EN] to me. [ZH]再见。走了") == [
        "[EN]He said[JP]はい[EN]to me.",
        "再见。",
        "走了",
    ]


def test_long_sentences_are_cut_at_commas():
    clause = "一二三四五六七八九十" * 3 + "，"
    found = cut(clause * 20, "ZH")
    assert "".join(found) == clause * 20
    assert all(clause.strip("，") in text and len(text) <= LONGEST_SENTENCE for text in found)
    assert len(found) == 4
    assert cut("字" * 500, "ZH") == ["字" * 500]
