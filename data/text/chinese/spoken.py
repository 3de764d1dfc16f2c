"""Chinese as it is spoken: numbers, units, signs and letters in characters.

OpenCC makes characters simplified, WeText spells numbers, dates and times; the rules here are what
these lack. Each has its case in tests/data/text/cases.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from data.text.chinese.words import is_said
from data.text.english.words import is_word, words_in
from data.text.scripts import foreign_words
from data.text.spoken.cleaning import Spoken, clean, keep
from data.text.spoken.units import names, reader
from data.text.symbols import PUNCTUATION

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_LETTER_NAMES = (
    "诶 逼 西 低 伊 艾弗 吉 艾曲 艾 杰 开 艾勒 艾姆 恩 欧 批 丘 阿尔 艾斯 踢 优 威 达布留 艾克斯 "
    "歪 贼"
)
_GREEK_NAMES = (
    "阿尔法 贝塔 伽马 德尔塔 艾普西龙 西塔 兰姆达 缪 派 柔 西格玛 陶 斐 欧米伽 欧姆 德尔塔 西格玛"
)
_LETTERS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _LETTER_NAMES.split(), strict=True))
_GREEK = dict(zip("αβγδεθλμπρστφωΩΔΣ", _GREEK_NAMES.split(), strict=True))
_CURRENCIES = {"$": "美元", "¥": "元", "€": "欧元", "£": "英镑", "₩": "韩元", "₽": "卢布"}
_CURRENCIES |= {"₹": "卢比", "₫": "越南盾", "฿": "泰铢", "US$": "美元", "HK$": "港元"}
_CURRENCIES |= {"NT$": "新台币", "RMB": "元", "CNY": "元", "USD": "美元"}
_DIGITS = "零一二三四五六七八九"
# behind a long number that is counted, not dialled
_COUNTED = (
    "元块角分人个名位次年月日天岁万亿千百米克吨斤公里平英美欧港日韩升页字本条件台辆只家户种度"
)
_NUMBERED = (
    "电话|手机|热线|号码|密码|验证码|邮编|编号|学号|工号|尾号|账号|帐号|卡号|证号|单号|房号|微信|QQ"
)

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_LISTED = "|".join(re.escape(sign) for sign in sorted(_CURRENCIES, key=len, reverse=True))
_HAN = "一-龥"


def _digits(number: str, one: str = "幺") -> str:
    """Spell digits one by one; 一 is 幺 in numbers that are dialled."""
    digits = one if number == "1" else ""
    return digits or "".join(
        one if digit == "1" else _DIGITS[int(digit)] for digit in number if digit.isdecimal()
    )


def _dialled(match: re.Match[str]) -> str:
    return ("加" if match[0].startswith("+") else "") + _digits(match[0])


def _long_number(match: re.Match[str]) -> str:
    """Spell a long number as it is dialled, unless it is a round one or counts something."""
    number = match[0]
    return number if number.endswith("000") else _digits(number)


def _range(match: re.Match[str]) -> str:
    first, last = match["first"], match["last"]
    years = [_is_year(first), _is_year(last)]
    if all(years):
        return f"{_digits(first, '一')}到{_digits(last, '一')}"
    return f"{first}到{last}"


def _half_of_day(match: re.Match[str]) -> str:
    time = match[1] if ":" in match[1] else f"{match[1]}点"
    return f"{'上午' if match[2] in 'aA' else '下午'}{time}"


def _is_year(number: str) -> bool:
    return re.fullmatch(r"1\d{3}|20\d\d", number) is not None


def _money(match: re.Match[str]) -> str:
    sign, first, last, myriads = match.groups()
    amount = f"{first}到{last}" if last else first
    return f"{amount.replace(',', '')}{myriads}{_CURRENCIES[sign]}"


def _grouped(match: re.Match[str]) -> str:
    """Spell 12,345 as a number; WeText would spell 12345 as it is dialled."""
    number = match[0].replace(",", "")
    return _speller().normalize(f"{number}元").removesuffix("元")


_RULES: tuple[Rule, ...] = (
    (
        re.compile(
            r"(?<!\d)(?:\+\d{1,3}[- ]?)?(?:\(?0\d{2,3}\)?[- ]?\d{7,8}|1[3-9]\d[- ]?\d{4}[- ]?\d{4}"
            r"|[48]00[- ]?\d{3}[- ]?\d{4}|\d{3,4}-\d{3,4}-\d{4})(?!\d)"
        ),
        _dialled,
    ),
    (
        re.compile(rf"(?:{_NUMBERED})(?:号码?|是|为|[:,\s])*\d[\d -]*\d"),
        lambda match: re.sub(r"[\d -]*\d", lambda number: _digits(number[0]), match[0]),
    ),
    (re.compile(rf"(?<![\d.])[1-9]\d{{6,}}(?![\d.{_COUNTED}])"), _long_number),
    (re.compile(r"(\d{1,2}(?::\d\d)?)\s?([ap])\.?m(?![A-Za-z])\.?", re.IGNORECASE), _half_of_day),
    (re.compile(r"(?<=[A-Za-z0-9])\.(?=[A-Za-z]{2})"), "点"),
    (re.compile(r"(?<![A-Za-z])Wi-?Fi(?![A-Za-z])", re.IGNORECASE), "wifi"),
    (re.compile(r"(?<=[A-Za-z])\+\+"), "加加"),
    (re.compile(r"(?<=[A-Za-z])\+(?![\w(])"), "加"),
    (re.compile(r"(?<=[A-Z])#"), "井"),
    # ¥100-200, $1.5亿, 100$
    (
        re.compile(
            rf"({_LISTED})\s*({_NUMBER})(?:\s*[-~—到]\s*(?:{_LISTED})?({_NUMBER}))?\s*([万亿千百]*)"
        ),
        _money,
    ),
    (
        re.compile(rf"({_NUMBER})\s*({_LISTED})"),
        lambda match: match[1].replace(",", "") + _CURRENCIES[match[2]],
    ),
    (re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d%‰]|,\d)"), _grouped),
    (re.compile(r"(?<=\d),(?=\d{3})"), ""),
    (re.compile(r"(?<=\d) (?=\d/\d)"), "又"),
    (re.compile(r"(?<=\d)\s+(?=[%‰])"), ""),
    (re.compile(rf"({_NUMBER})‰"), r"千分之\1"),
    (re.compile(r"(?<![\d.])100%"), "百分之百"),
    (
        re.compile(
            rf"(?<![\d.:/+-])(?P<first>{_NUMBER}%?)\s*[-~—]\s*(?P<last>{_NUMBER}%?)"
            r"(?![\d.:/-]|年|月|\s*[=+×÷])"
        ),
        _range,
    ),
    (re.compile(r"(?<=[\d)])\s*[x×*]\s*(?=[\d(])"), "乘"),
    (re.compile(r"(?<=\d)\s*-\s*(?=[\d.]+\s*[=+×÷])"), "减"),
    (re.compile(r"(?<=[\d)])\s*÷\s*(?=[\d(])"), "除以"),
    (re.compile(r"\^2(?!\d)"), "的平方"),
    (re.compile(r"\^3(?!\d)"), "的立方"),
    (re.compile(r"\^(\d+)"), r"的\1次方"),
    (re.compile(r"No\.(?=\s?\d)"), "第"),
    (re.compile(r"#(?=\d)"), "第"),
    (
        re.compile(r"[〇○](?=[零一二三四五六七八九〇○])|(?<=[零一二三四五六七八九〇○第])[〇○]|〇"),
        "零",
    ),
)
# what WeText leaves or does not know, between numbers, words and letters
_SIGNS = {"&": "和", "@": "艾特", "≈": "约等于", "±": "正负", "≥": "大于等于", "≤": "小于等于"}
_SIGNS |= {
    "≠": "不等于",
    ">": "大于",
    "<": "小于",
    "∞": "无穷大",
    "√": "根号",
    "+": "加",
    "=": "等于",
}
_SIGNS |= {"×": "乘", "÷": "除以"}
_SIGN = re.compile(
    rf"(?<=[\w%°)])\s*([{re.escape(''.join(_SIGNS))}])\s*(?=[\w(])|([≈±√≥≤])(?=\s?\d)|(∞)"
)
_PER = re.compile(rf"(?<=[{_HAN}])/(?=[{_HAN}])")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_MARK_OF = str.maketrans(
    {
        **dict.fromkeys("，、·・：；:;/", ","),
        "。": ".",
        "．": ".",
        **dict.fromkeys('"“”‘’《》【】（）()[]{}「」『』〈〉〔〕', "'"),
        **dict.fromkeys("—~", "-"),
        "！": "!",
        "？": "?",
    }
)
# Hesitations that pypinyin reads as bare consonants, which the symbol set lacks: the nearest
# syllables stand in for them.
_SYLLABLE_OF = str.maketrans("嗯呣噷妳祂牠", "恩母哼你他它")
_SILENT = "\u3000*_|\\^`"
_RUBY = re.compile(
    r"(?<=[一-龥])[(（](?=[^()（）]*[āáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜ])[a-zA-Zü\s'À-ǜ]+[)）]"
)
_NOT_BETWEEN_WORDS = re.compile(r"(?<![a-z']) +| +(?![a-z'])")
_CHARACTER = re.compile("[㐀-䶿\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_READ = re.compile(
    rf"[㐀-䶿\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffffa-z {re.escape(''.join(PUNCTUATION))}]"
)


@functools.cache
def _simplifier() -> Any:
    from opencc import OpenCC

    return OpenCC("tw2s")


@functools.cache
def _speller() -> Any:
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn", traditional_to_simple=True, full_to_half=False)


@functools.cache
def _units() -> Callable[[str], str]:
    # WeText puts 百分之 before the number
    known = {unit: name for unit, name in names("ZH").items() if unit not in ("%", "‰")}
    return reader(lambda number, unit: number + known[unit], known)


def speak(text: str) -> Spoken:
    """Return a text in simplified characters, the symbol set's punctuation and English words.

    English words stay in small letters, for the English front end; other letters have their names.
    """
    text = _RUBY.sub("", clean(text))
    if foreign_words(text):
        return Spoken("", "".join(filter(str.isalnum, text)))
    text = _simplifier().convert(text).replace("...", "…")
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    text = _PER.sub("每", _units()(text))
    text = _WORD.sub(_read_letters, text)
    text = _SIGN.sub(lambda match: _SIGNS["".join(filter(None, match.groups()))], text)
    for sign, name in _GREEK.items():
        text = text.replace(sign, name)
    text = _speller().normalize(text)
    text = text.translate(_MARK_OF).translate(_SYLLABLE_OF)
    unsaid = {char for char in text if _CHARACTER.match(char) and not is_said(char)}
    readable = _READ if not unsaid else re.compile(f"(?![{''.join(unsaid)}]){_READ.pattern}")
    spoken = keep(text, readable, _SILENT)
    return Spoken(_NOT_BETWEEN_WORDS.sub("", spoken.text), spoken.unread)


def _read_letters(match: re.Match[str]) -> str:
    """Return known English words in small letters, and the Chinese names of other letters."""
    return " ".join(
        part.lower()
        if is_word(part)
        else "".join(_LETTERS[char.upper()] for char in part if char != "'")
        for part in words_in(match[0])
    )
