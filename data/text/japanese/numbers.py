"""Japanese numbers in kanji."""

import re

_DIGITS = "零一二三四五六七八九"
_PLACES = ("", "十", "百", "千")
_MYRIADS = ("", "万", "億", "兆", "京", "垓")
_CURRENCIES = {"$": "ドル", "¥": "円", "£": "ポンド", "€": "ユーロ"}

_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)")
_CURRENCY = re.compile(rf"([{''.join(_CURRENCIES)}])(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def spell_numbers(text: str) -> str:
    """Write Arabic numerals as kanji: ¥12,800 -> 一万二千八百円."""
    text = _GROUPED.sub(lambda match: match[0].replace(",", ""), text)
    text = _CURRENCY.sub(lambda match: match[2] + _CURRENCIES[match[1]], text)
    return _NUMBER.sub(lambda match: _spell(match[0]), text)


def _spell(number: str) -> str:
    whole, _, fraction = number.partition(".")
    fraction = fraction.rstrip("0")  # 25.50 is spoken as 25.5
    return _spell_whole(whole) + ("点" + _spell_digits(fraction) if fraction else "")


def _spell_digits(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _spell_whole(number: str) -> str:
    number = number.lstrip("0")
    if not number:
        return _DIGITS[0]
    if len(number) > 4 * len(_MYRIADS):
        return _spell_digits(number)  # no counting words reach so far

    groups = [number[max(0, end - 4) : end] for end in range(len(number), 0, -4)]
    return "".join(
        _spell_group(group) + myriad
        for group, myriad in reversed(list(zip(groups, _MYRIADS, strict=False)))
        if int(group)
    )


def _spell_group(group: str) -> str:
    """Spell up to four digits; the one before ten, hundred and thousand is silent."""
    spelled = ""
    for digit, place in zip(group, reversed(_PLACES[: len(group)]), strict=True):
        if digit != "0":
            spelled += ("" if digit == "1" and place else _DIGITS[int(digit)]) + place
    return spelled
