"""Kana to phones, mora by mora."""

import functools
import re

# rows of the kana table: the consonant phone, and the kana before a, i, u, e, o ("." where the row
# has none)
_ROWS = {
    "": "アイウエオ ァィゥェォ .ヰ.ヱヲ",
    "k": "カキクケコ",
    "g": "ガギグゲゴ",
    "s": "サ.スセソ",
    "z": "ザ.ズゼゾ ..ヅ..",
    "sh": ".シ...",
    "j": ".ジ... .ヂ...",
    "t": "タ..テト",
    "d": "ダ..デド",
    "ch": ".チ...",
    "ts": "..ツ..",
    "n": "ナニヌネノ",
    "h": "ハヒ.ヘホ",
    "f": "..フ..",
    "b": "バビブベボ ..ヴ..",
    "p": "パピプペポ",
    "m": "マミムメモ",
    "r": "ラリルレロ",
    "y": "ヤ.ユ.ヨ ャ.ュ.ョ",
    "w": "ワ.... ヮ....",
}
# a kana and a small one: the consonant, the kana, and the small kana that follow it
_PAIRS = [
    ("ky", "キ", "ャュェョ"),
    ("gy", "ギ", "ャュェョ"),
    ("sh", "シ", "ャュェョ"),
    ("j", "ジ", "ャュェョ"),
    ("j", "ヂ", "ャュェョ"),
    ("ch", "チ", "ャュェョ"),
    ("ny", "ニ", "ャュェョ"),
    ("hy", "ヒ", "ャュェョ"),
    ("by", "ビ", "ャュェョ"),
    ("by", "ヴ", "ャュョ"),
    ("py", "ピ", "ャュェョ"),
    ("my", "ミ", "ャュェョ"),
    ("ry", "リ", "ャュェョ"),
    ("ty", "テ", "ャュョ"),
    ("dy", "デ", "ャュョ"),
    ("f", "フ", "ァィェォ"),
    ("b", "ヴ", "ァィェォ"),
    ("ts", "ツ", "ァィェォ"),
    ("w", "ウ", "ィェォ"),
    ("y", "イ", "ェ"),
    ("t", "テ", "ィ"),
    ("d", "デ", "ィ"),
    ("t", "ト", "ゥ"),
    ("d", "ド", "ゥ"),
    ("s", "ス", "ィ"),
    ("z", "ズ", "ィ"),
]
_VOWEL_OF_SMALL = dict(zip("ァィゥェォャュョ", "aiueoauo", strict=True))


def _table() -> dict[str, list[str]]:
    table = {"ン": ["n"], "ッ": ["q"], "ー": ["ー"]}
    for consonant, kana in _ROWS.items():
        for row in kana.split():
            for char, vowel in zip(row, "aiueo", strict=True):
                if char != ".":
                    table[char] = [consonant, vowel] if consonant else [vowel]
    for consonant, kana, small in _PAIRS:
        for char in small:
            table[kana + char] = [consonant, _VOWEL_OF_SMALL[char]]
    return table


_MORAS = _table()
_MORA = re.compile("|".join(sorted(_MORAS, key=len, reverse=True)))


@functools.lru_cache(maxsize=65536)
def moras(kana: str) -> tuple[list[str], ...]:
    """Return the phones of each mora of a reading in katakana.

    ["ー"] is a mora that lengthens the one before. What is no kana has no mora: a pause mark, the
    sign for a voiceless vowel.
    """
    return tuple(_MORAS[kana] for kana in _MORA.findall(kana))


def phones_of_kana(reading: str) -> list[tuple[str, int]]:
    """Return the phones of a reading in kana, low at first and high from then on.

    Raises:
        ValueError: it is no kana, or begins with a long mark.
    """
    kana = "".join(chr(ord(char) + 0x60) if "ぁ" <= char <= "ゖ" else char for char in reading)
    if _MORA.sub("", kana).strip() or kana.startswith("ー"):
        raise ValueError(f"{reading!r}: give kana, as in `ナキリ`")
    phones: list[tuple[str, int]] = []
    for number, mora in enumerate(moras(kana)):
        said = [phones[-1][0]] if mora == ["ー"] else mora
        phones += [(phone, int(number > 0)) for phone in said]
    return phones
