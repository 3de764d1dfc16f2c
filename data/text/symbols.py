"""Phones, tones and languages as numbers; those of ZH, JP and EN are Bert-VITS2 2.3's.

Published weights index their embeddings with these numbers, so the order is part of the file
format. What a further language of `data.text.languages` adds gets the numbers behind them.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

from data.text.languages import LANGUAGES, Language, count_tones, find

PAD = "_"
PUNCTUATION = ("!", "?", "…", ",", ".", "'", "-")

# Upper-case names keep apart what would collide: "V" is English v (lower-case v is Chinese ü), "N"
# a Japanese moraic nasal, "E" and "En" the vowels of ye and yan, "AA", "EE", "OO" the empty
# initials before a, e, o.
_PHONES = (
    "AA E EE En N OO V a a: aa ae ah ai an ang ao aw ay b by c ch d dh dy e e: eh ei en eng "
    "er ey f g gy h hh hy i i0 i: ia ian iang iao ie ih in ing iong ir iu iy j jh k ky l m my "
    "n ng ny o o: ong ou ow oy p py q r ry s sh t th ts ty u u: ua uai uan uang uh ui un uo "
    "uw v van ve vn w x y z zh zy"
)

SYMBOLS: tuple[str, ...] = (PAD, *_PHONES.split(), *PUNCTUATION, "SP", "UNK")
"""The published symbol set."""


@functools.cache
def symbols(languages: Sequence[Language]) -> tuple[str, ...]:
    """Return the symbols of networks for these languages, in the order of their numbers."""
    added = (phone for language in languages for phone in language.phones)
    return tuple(dict.fromkeys((*SYMBOLS, *added)))


@functools.cache
def _symbol_ids(languages: Sequence[Language]) -> Mapping[str, int]:
    return {symbol: number for number, symbol in enumerate(symbols(languages))}


def symbol_ids() -> Mapping[str, int]:
    """Return the number of each symbol of all languages."""
    return _symbol_ids(tuple(LANGUAGES.values()))


def language_id(code: str) -> int:
    """Return the number of a language: 0 for ZH, 1 for JP, 2 for EN."""
    return list(LANGUAGES).index(find(code).code)


def first_tone(code: str) -> int:
    """Return the number of a language's tone 0 among the tones of all languages."""
    before = list(LANGUAGES.values())[: language_id(code)]
    return count_tones(before)


def unknown_phones(phones: Iterable[str]) -> list[str]:
    """Return the phones that are no symbol of any language, sorted."""
    return sorted(set(phones) - symbol_ids().keys())


def phone_ids(phones: Sequence[str]) -> list[int]:
    """Return the numbers of phones, [P] -> [P]."""
    if unknown := unknown_phones(phones):
        raise ValueError(f"no such symbol: {', '.join(map(repr, unknown))}")
    numbers = symbol_ids()
    return [numbers[phone] for phone in phones]


def tone_ids(tones: Sequence[int], language: str) -> list[int]:
    """Turn tones counted within a language into tones counted over all languages, [P] -> [P]."""
    count = find(language).tones
    wrong = sorted({tone for tone in tones if not 0 <= tone < count})
    if wrong:
        raise ValueError(
            f"{language} has the tones 0 to {count - 1}, not {', '.join(map(str, wrong))}"
        )
    start = first_tone(language)
    return [start + tone for tone in tones]
