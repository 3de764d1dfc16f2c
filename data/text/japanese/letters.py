"""Latin letters in Japanese: their kana names, and English words as Japanese says them."""

import functools
import re

from data.text.english.words import arpabet, is_word

_NAMES = (
    "エー ビー シー ディー イー エフ ジー エイチ アイ ジェー ケー エル エム エヌ "
    "オー ピー キュー アール エス ティー ユー ブイ ダブリュー エックス ワイ ゼット"
)
NAMES = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _NAMES.split(), strict=True))
_OTHER_NAMES = {
    "A": "エイ",
    "H": "エッチ",
    "J": "ジェイ",
    "K": "ケイ",
    "O": "オウ",
    "V": "ヴィー",
    "Z": "ズィー",
}
_NARROW = {ord(char) + 0xFEE0: char for char in NAMES} | {
    ord(char) + 0xFEE0: char for char in map(str.lower, NAMES)
}

# vowel of ARPAbet -> the kana's vowel, and what follows the kana
_VOWELS = {
    "AA": "aー",
    "AE": "a",
    "AH": "a",
    "AO": "oー",
    "AW": "aウ",
    "AY": "aイ",
    "EH": "e",
    "ER": "aー",
    "EY": "eー",
    "IH": "i",
    "IY": "iー",
    "OW": "oー",
    "OY": "oイ",
    "UH": "u",
    "UW": "uー",
}
# consonant -> kana before a, i, u, e, o, and by itself
_CONSONANTS = {
    "": "ア イ ウ エ オ",
    "B": "バ ビ ブ ベ ボ ブ",
    "CH": "チャ チ チュ チェ チョ チ",
    "D": "ダ ディ ドゥ デ ド ド",
    "DH": "ザ ジ ズ ゼ ゾ ズ",
    "F": "ファ フィ フ フェ フォ フ",
    "G": "ガ ギ グ ゲ ゴ グ",
    "HH": "ハ ヒ フ ヘ ホ フ",
    "JH": "ジャ ジ ジュ ジェ ジョ ジ",
    "K": "カ キ ク ケ コ ク",
    "L": "ラ リ ル レ ロ ル",
    "M": "マ ミ ム メ モ ム",
    "N": "ナ ニ ヌ ネ ノ ン",
    "NG": "ンガ ンギ ング ンゲ ンゴ ング",
    "P": "パ ピ プ ペ ポ プ",
    "R": "ラ リ ル レ ロ ー",
    "S": "サ シ ス セ ソ ス",
    "SH": "シャ シ シュ シェ ショ シュ",
    "T": "タ ティ トゥ テ ト ト",
    "TH": "サ シ ス セ ソ ス",
    "V": "バ ビ ブ ベ ボ ブ",
    "W": "ワ ウィ ウ ウェ ウォ ウ",
    "Y": "ヤ イ ユ イェ ヨ イ",
    "Z": "ザ ジ ズ ゼ ゾ ズ",
    "ZH": "ジャ ジ ジュ ジェ ジョ ジュ",
}
_KANA = {consonant: kana.split() for consonant, kana in _CONSONANTS.items()}
_STOPS = frozenset(("P", "T", "K", "CH", "D", "G", "JH"))
_SHORT = frozenset(("AE", "AH", "EH", "IH", "UH"))


def narrow(letters: str) -> str:
    """Return letters of full width as ASCII."""
    return letters.translate(_NARROW)


def spelled(letters: str) -> str:
    """Return the kana names of letters."""
    return "".join(NAMES[char] for char in letters.upper() if char in NAMES)


@functools.lru_cache(maxsize=65536)
def kana_of(letters: str) -> str:
    """Return letters as kana: a word as it sounds, others by their names."""
    return to_kana(arpabet(letters)) if is_word(letters) else spelled(letters)


@functools.cache
def _name_pattern(letters: str) -> re.Pattern[str]:
    """Match every way to name letters one by one."""
    return re.compile(
        "".join(f"(?:{NAMES[char]}|{_OTHER_NAMES.get(char, NAMES[char])})" for char in letters)
    )


def usual_names(letters: str, reading: str) -> str:
    """Return a reading of letters; one that names them one by one in their usual names."""
    return spelled(letters) if is_names(letters, reading.replace("’", "")) else reading


def is_names(letters: str, reading: str) -> bool:
    """Tell whether a reading names capitals one by one."""
    capitals = letters.isascii() and letters.isalpha() and letters.isupper()
    return capitals and _name_pattern(letters).fullmatch(reading) is not None


def to_kana(phones: list[str]) -> str:
    """Return ARPAbet in katakana: K AE1 T -> キャット."""
    names = re.sub(r"NG (?=[KG])", "N ", " ".join(phone.rstrip("012") for phone in phones)).split()
    kana = ""
    onset = ""  # a consonant that waits for its vowel
    for index, name in enumerate(names):
        if name in _VOWELS:
            kana += _syllable(onset, name)
            onset = ""
            continue
        if onset:
            kana += _KANA[onset][5]
        closes = (
            index > 0 and names[index - 1] in _SHORT and not set(names[index + 1 :]) & set(_VOWELS)
        )
        if name in _STOPS and closes:
            kana += "ッ"
        onset = name
    return re.sub("ー+", "ー", kana + (_KANA[onset][5] if onset else ""))


def _syllable(onset: str, vowel: str) -> str:
    sound = _VOWELS[vowel]
    kana = _KANA[onset]["aiueo".index(sound[0])]
    if onset in ("K", "G") and vowel == "AE":
        kana = {"K": "キャ", "G": "ギャ"}[onset]
    return kana + sound[1:]
