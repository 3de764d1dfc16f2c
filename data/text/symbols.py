"""The symbol set of Bert-VITS2 2.3: phones, tones and languages as numbers.

Published weights index their embeddings with these numbers, so the order is part of the file
format.
"""

from collections.abc import Sequence
from itertools import accumulate

PAD = "_"
PUNCTUATION = ("!", "?", "…", ",", ".", "'", "-")

# Upper-case names keep apart what would collide: "V" is English v (lower-case v is Chinese ü), "N"
# a Japanese moraic nasal, "E" and "En" the vowels of ye and yan, "AA", "EE", "OO" the empty
# initials before a, e, o.
_PHONES = (
    "AA E EE En N OO V a a: aa ae ah ai an ang ao aw ay b by c ch d dh dy e e: eh ei en eng er ey f g gy h hh hy "
    "i i0 i: ia ian iang iao ie ih in ing iong ir iu iy j jh k ky l m my n ng ny o o: ong ou ow oy p py q r ry "
    "s sh t th ts ty u u: ua uai uan uang uh ui un uo uw v van ve vn w x y z zh zy"
)

SYMBOLS: tuple[str, ...] = (PAD, *_PHONES.split(), *PUNCTUATION, "SP", "UNK")
SYMBOL_IDS: dict[str, int] = {symbol: index for index, symbol in enumerate(SYMBOLS)}

TONE_COUNTS = {"ZH": 6, "JP": 2, "EN": 4}
"""Tones a language, counted with 0 (punctuation, silence; in Japanese also low pitch)."""
LANGUAGE_IDS = {language: index for index, language in enumerate(TONE_COUNTS)}
TONE_STARTS = dict(zip(TONE_COUNTS, accumulate(TONE_COUNTS.values(), initial=0), strict=False))
NUM_SYMBOLS = len(SYMBOLS)
NUM_TONES = sum(TONE_COUNTS.values())
NUM_LANGUAGES = len(LANGUAGE_IDS)


def language_id(language: str) -> int:
    """The number of a language, 0 for ZH, 1 for JP, 2 for EN."""
    if language not in LANGUAGE_IDS:
        raise ValueError(f"unknown language {language!r}: use one of {', '.join(LANGUAGE_IDS)}")
    return LANGUAGE_IDS[language]


def phone_ids(phones: Sequence[str]) -> list[int]:
    """The numbers of phones, [P] -> [P]."""
    unknown = sorted({phone for phone in phones if phone not in SYMBOL_IDS})
    if unknown:
        raise ValueError(f"no such symbol: {', '.join(map(repr, unknown))}")
    return [SYMBOL_IDS[phone] for phone in phones]


def tone_ids(tones: Sequence[int], language: str) -> list[int]:
    """Tones counted within a language -> tones counted over all languages, [P] -> [P]."""
    language_id(language)
    count, start = TONE_COUNTS[language], TONE_STARTS[language]
    wrong = sorted({tone for tone in tones if not 0 <= tone < count})
    if wrong:
        raise ValueError(
            f"{language} has the tones 0 to {count - 1}, not {', '.join(map(str, wrong))}"
        )
    return [start + tone for tone in tones]
