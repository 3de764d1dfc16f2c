"""Japanese as it is spoken: numbers, units, signs, letters and long vowels in kana and kanji.

Each rule has its case in tests/data/text/cases. Letters stay, in full width, as Open JTalk's
dictionary knows many words in letters; `data.text.japanese.letters` reads the others.
"""

import functools
import re
from collections.abc import Callable

from data.text.japanese.numbers import spell_numbers
from data.text.scripts import foreign_words
from data.text.spoken.cleaning import Spoken, clean, keep, said_signs
from data.text.spoken.units import names, reader
from data.text.symbols import PUNCTUATION

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_KANJI = "一-鿿㐀-䶿豈-龎\U00020000-\U0003ffff々〆"
_KANA = "ぁ-ゖァ-ヺー"
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_LAST = rf"{_NUMBER}(?![\d-]|\s*[=+×÷])"  # of a range; the minus of a sum is none
_DIGIT_NAMES = "ゼロ イチ ニ サン ヨン ゴ ロク ナナ ハチ キュー"
_DIALLED = dict(zip("0123456789", _DIGIT_NAMES.split(), strict=True))
_DAYS = "月火水木金土日"
_CURRENCIES = {"$": "ドル", "¥": "円", "€": "ユーロ", "£": "ポンド", "₩": "ウォン", "元": "元"}
_CURRENCIES |= {"US$": "ドル", "USD": "ドル", "JPY": "円", "EUR": "ユーロ"}
_LISTED = "|".join(re.escape(sign) for sign in sorted(_CURRENCIES, key=len, reverse=True))
# characters that the dictionaries lack -> those that they have
_VARIANTS = str.maketrans(
    "𠮟㐂髙﨑𠮷德濵濱邉邊嶋槗栁冨凜塚羽", "叱喜高崎吉徳浜浜辺辺島橋柳富凛塚羽"
)
_KANA_OF = str.maketrans({"ヷ": "ヴァ", "ヸ": "ヴィ", "ヹ": "ヴェ", "ヺ": "ヴォ", "ゔ": "ヴ"})
_VOWELS = ("あぁアァ", "いぃイィ", "うぅウゥ", "えぇエェ", "おぉオォ")
_ROWS = (
    "あかさたなはまやらわがざだばぱぁゃゎ",
    "いきしちにひみりぎじぢびぴぃ",
    "うくすつぬふむゆるぐずづぶぷぅゅ",
    "えけせてねへめれげぜでべぺぇ",
    "おこそとのほもよろをごぞどぼぽぉょ",
)


def _dialled(match: re.Match[str]) -> str:
    """Spell digits one by one, and a hyphen between them as の."""
    groups = re.findall(r"\d+", match[0])
    return "の".join("".join(_DIALLED[digit] for digit in group) for group in groups)


def _time(match: re.Match[str]) -> str:
    hour, minute, second = match.groups()
    minutes = f"{int(minute)}分" if int(minute) or second else ""
    return f"{int(hour)}時{minutes}{f'{int(second)}秒' if second else ''}"


def _fraction(match: re.Match[str]) -> str:
    whole = f"{match[1]}と" if match[1] else ""
    return f"{whole}{match[3]}分の{match[2]}"


def _money(match: re.Match[str]) -> str:
    return f"{match[2]}{match[3]}{_CURRENCIES[match[1]]}"


def _money_behind(match: re.Match[str]) -> str:
    return f"{match[1]}{_CURRENCIES[match[2]]}"


_RULES: tuple[Rule, ...] = (
    # ruby: the reading alone, of kanji with kana behind them
    (re.compile(rf"[｜|]([^｜|《》]+)《([{_KANA}]+)》"), r"\2"),
    (re.compile(rf"[{_KANJI}]+《([{_KANA}・]+)》"), r"\1"),
    (re.compile(rf"\{{[^{{}}|]*\|([{_KANA}|]+)\}}"), r"\1"),
    (re.compile(rf"[{_KANJI}]+\(([ぁ-ゖー]+)\)"), r"\1"),
    (re.compile(r"([年月日])\((祝|休)\)"), r"\1、\2日"),
    (
        re.compile(rf"(?<![\d/])(1[0-2]|0?[1-9])/([12]\d|3[01]|0?[1-9])(?=\s?[(（][{_DAYS}])"),
        r"\1月\2日",
    ),
    (re.compile(rf"(?<=日)\s?[(（]([{_DAYS}])(曜日?)?(・祝)?[)）]"), r"\1曜日"),
    # a long mark on which the vowel goes on longer is a long mark
    (re.compile(rf"(?<=[{_KANA}])[~]+(?=[っッ!?。、…]|$)(?<=~~)"), "ー"),
    (re.compile(r"(?<=[ー])[ー〰]+|〰"), ""),
    # numbers
    (re.compile(r"(?<![\d.-])(?:\+\d{1,3}-)?0\d{1,4}-\d{1,4}-\d{3,4}(?![\d-])"), _dialled),
    (re.compile(r"(?<![\d.,:/-])0\d+(?![\d.,:/年月日時分秒-])"), _dialled),
    (re.compile(r"〒\s?(\d{3})-(\d{4})"), lambda match: f"郵便番号{_dialled(match)}"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d:])([01]?\d|2[0-9]):([0-5]\d)(?::([0-5]\d))?(?![\d:])"), _time),
    (re.compile(r"(?<![\d:.])(\d{1,3}):(\d{1,3})(?![\d:.])"), r"\1対\2"),
    (re.compile(r"\(株\)"), "株式会社"),
    (re.compile(r"\(有\)"), "有限会社"),
    (
        re.compile(r"(?<!\d)(\d{4})([-/.])(1[0-2]|0?[1-9])\2([12]\d|3[01]|0?[1-9])(?!\d)"),
        lambda match: f"{match[1]}年{int(match[3])}月{int(match[4])}日",
    ),
    (re.compile(rf"({_LISTED})\s?({_NUMBER})([千万億兆]*)"), _money),
    (re.compile(rf"({_NUMBER}[千万億兆]*)\s?([$€£¥₩])"), _money_behind),
    (re.compile(r"(?:(\d+) )?(?<![\d/])(\d+)/(\d+)(?![\d/])"), _fraction),
    (re.compile(rf"(?<![\d-])({_NUMBER}\D{{0,2}}?)\s*[~-]\s*(?={_LAST})"), r"\1から"),
    (re.compile(r"(?<=[\d)])\s*-\s*(?=[\d(])"), "マイナス"),
    (re.compile(r"(?<![\w)])-(?=\d)"), "マイナス"),
    (re.compile(r"(?<=[\d)])\s*[x×*]\s*(?=[\d(])"), "カケル"),
    (re.compile(r"(?<=[\d)])\s*÷\s*(?=[\d(])"), "ワル"),
    (re.compile(r"\^2(?!\d)"), "の二乗"),
    (re.compile(r"\^(\d+)"), r"の\1乗"),
    (re.compile(r"(?:No\.|#)\s?(?=\d)", re.IGNORECASE), "ナンバー"),
    (re.compile(r"(?<![A-Za-z])([ap])\.m\.?", re.IGNORECASE), r"\1m"),
)
_SIGNS = {"&": "アンド", "@": "アットマーク", "+": "プラス", "=": "イコール", "#": "シャープ"}
_SIGNS |= {"×": "カケル", "÷": "ワル"}
_SIGNS |= {"±": "プラスマイナス", "≒": "ニアリーイコール", "≠": "ノットイコール", "∞": "無限大"}
_SIGNS |= {"%": "パーセント", "°": "度", "√": "ルート", "≥": "以上", "≤": "以下", "/": "スラッシュ"}
_GREEK_NAMES = (
    "アルファ ベータ ガンマ デルタ イプシロン シータ ラムダ ミュー パイ シグマ ファイ オメガ "
    "オーム デルタ シグマ"
)
_SIGNS |= dict(zip("αβγδεθλμπσφωΩΔΣ", _GREEK_NAMES.split(), strict=True))
_SIGN = said_signs(_SIGNS)
_ELONGATED = tuple(
    re.compile(
        # あああ behind かさたな..., ああ before a stop, and whatever holds a long mark
        rf"(?<=[{row}])(?:[{vowels}]{{3,}}ー*|[{vowels}]+ー[{vowels}ー]*"
        rf"|[{vowels}]{{2,}}(?=[っッ!?。…]|$))"
    )
    for row, vowels in zip(
        (row + "".join(chr(ord(kana) + 0x60) for kana in row) for row in _ROWS),
        _VOWELS,
        strict=True,
    )
)
_MARK_OF = str.maketrans(
    {
        **dict.fromkeys("、・，;:：；", ","),
        **dict.fromkeys("。．", "."),
        **dict.fromkeys('「」『』“”‘’"()[]{}<>《》【】〈〉〔〕', "'"),
        **dict.fromkeys("—―–−~", "-"),
    }
)
_SPACE = re.compile(rf"(?<=[{_KANA}{_KANJI}]) +(?=[{_KANA}{_KANJI}])|\s*\u3000\s*")
_MARKS = re.escape("".join(PUNCTUATION))
_NO_PAUSE = re.compile(rf"(?<=[{_MARKS}])\s*\u3000|\u3000\s*(?=[{_MARKS}])|^\s*\u3000|\u3000\s*$")
_NOT_BETWEEN_WORDS = re.compile("(?<![Ａ-Ｚａ-ｚ]) +| +(?![Ａ-Ｚａ-ｚ])")
_READ = re.compile(rf"[ぁ-ゖゝゞァ-ヺーヽヾ〇{_KANJI}Ａ-Ｚａ-ｚ {_MARKS}]")
_WIDE = {ord(char): ord(char) + 0xFEE0 for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_WIDE |= {ord(char): ord(char) + 0xFEE0 for char in "abcdefghijklmnopqrstuvwxyz"}
_SILENT = "*_|\\^`"


@functools.cache
def _units() -> Callable[[str], str]:
    known = names("JP")
    return reader(lambda number, unit: number + known[unit], known)


def speak(text: str) -> Spoken:
    """Return a text in kana, kanji, letters of full width and the symbol set's punctuation."""
    text = clean(text, ruby=True).translate(_VARIANTS).translate(_KANA_OF)
    if foreign_words(text):
        return Spoken("", "".join(filter(str.isalnum, text)))
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    for elongated in _ELONGATED:
        text = elongated.sub("ー", text)
    text = spell_numbers(_units()(text))
    text = _SIGN.sub(lambda match: _SIGNS[match[0]], text)
    text = _SPACE.sub("\u3000", text.strip()).translate(_MARK_OF).translate(_WIDE)
    spoken = keep(_NO_PAUSE.sub("", text).replace("\u3000", ","), _READ, _SILENT)
    return Spoken(_NOT_BETWEEN_WORDS.sub("", spoken.text), spoken.unread)
