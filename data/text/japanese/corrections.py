"""Corrections of Open JTalk's readings, by what stands around a word."""

import re
from collections.abc import Iterable
from typing import Any

from data.text.japanese.letters import narrow, usual_names

_COUNTED = (
    "イップン ニフン サンプン ヨンプン ゴフン ロップン ナナフン ハップン キューフン ジュップン"
)
_MINUTES = dict(zip("一二三四五六七八九十", _COUNTED.split(), strict=True))
_NAN_BEFORE = re.compile(r"で|と|だ|の|な(?!に)|って|て|ど|たる")
_SOUNDS = {
    "フュ": "ヒュ",
    "ヴュ": "ビュ",
    "ウュ": "ユ",
    "クヮ": "クワ",
    "グヮ": "グワ",
    "イィ": "イー",
}


def corrected(features: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return words with their usual readings: 何です nan desu, 五分ほど gofun hodo, ＮＨＫ."""
    words = [dict(feature) for feature in features]
    for index, word in enumerate(words):
        following = words[index + 1]["string"] if index + 1 < len(words) else ""
        before = words[index - 1]["string"] if index else ""
        word["pron"] = _reading(word["string"], word["pron"], before, following)
    return words


def _reading(word: str, reading: str, before: str, following: str) -> str:
    if word == "何" and _NAN_BEFORE.match(following):
        return "ナン"
    minutes = re.fullmatch(r"([一二三四五六七八九十])分", word)
    if minutes and reading.endswith("ブ") and "分" not in before + following:
        return _MINUTES[minutes[1]]
    for kana, heard in _SOUNDS.items():
        reading = reading.replace(kana, heard)
    return usual_names(narrow(word), reading)
