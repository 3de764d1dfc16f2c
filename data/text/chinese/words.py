"""Words of Mandarin: jieba finds them, pypinyin reads them, and their pinyin becomes symbols."""

import functools
import warnings
from typing import Any

from data.text.symbols import unknown_phones

Syllable = tuple[str, int]
"""A syllable of pinyin without its tone, and the tone, 1 to 5."""

_INITIALS = ("zh", "ch", "sh", *"bpmfdtnlgkhjqxrzcsyw")
_EMPTY_INITIALS = {"a": "AA", "e": "EE", "o": "OO"}


@functools.cache
def tagger() -> Any:
    """Return jieba's part-of-speech tagger, with its log and its imports kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba 0.42 imports pkg_resources and has invalid escapes
        import jieba
        import jieba.posseg

    jieba.setLogLevel("WARNING")
    return jieba.posseg.dt


@functools.lru_cache(maxsize=65536)
def search_pieces(word: str) -> tuple[str, ...]:
    """Return the words that a search engine indexes a word by: its parts, and itself last."""
    return tuple(tagger().tokenizer.cut_for_search(word))


def split_syllable(syllable: str) -> tuple[str, str]:
    """Cut a syllable of pinyin, without its tone and with ü as v, into initial and final.

    The final names its vowel as it sounds: shi -> sh ir, si -> s i0, yan -> y En, ye -> y E, yu ->
    y v, an -> AA an.
    """
    initial = next((start for start in _INITIALS if syllable.startswith(start)), "")
    final = syllable[len(initial) :]
    if not initial:
        return _EMPTY_INITIALS.get(final[:1], final), final
    if initial in {"zh", "ch", "sh", "r"} and final == "i":
        final = "ir"
    elif initial in {"z", "c", "s"} and final == "i":
        final = "i0"
    elif initial == "y" and final in {"e", "an"}:
        final = {"e": "E", "an": "En"}[final]
    elif initial in {"j", "q", "x", "y"} and final.startswith("u"):
        final = "v" + final[1:]
    return initial, "ve" if final == "ue" else final


def phones_of_pinyin(reading: str) -> list[tuple[str, int]]:
    """Return the phones of a reading in pinyin with tones: shan4 tian2 fang1.

    Raises:
        ValueError: a syllable that Mandarin lacks, or one without its tone.
    """
    phones: list[tuple[str, int]] = []
    for syllable in reading.lower().replace("ü", "v").replace("u:", "v").split():
        toneless, tone = syllable[:-1], syllable[-1]
        if tone not in "12345" or toneless not in _syllables():
            raise ValueError(f"{reading!r}: {syllable} is no syllable with its tone, as in `shan4`")
        phones += [(phone, int(tone)) for phone in split_syllable(toneless)]
    return phones


@functools.cache
def _syllables() -> frozenset[str]:
    """Return all syllables of pinyin that the symbol set has phones for."""
    from pypinyin import pinyin_dict
    from pypinyin.contrib.tone_convert import to_normal

    readings = {one for listed in pinyin_dict.pinyin_dict.values() for one in listed.split(",")}
    found = {to_normal(reading, v_to_u=False) for reading in readings}
    return frozenset(
        syllable for syllable in found if syllable and not unknown_phones(split_syllable(syllable))
    )


@functools.lru_cache(maxsize=65536)
def is_said(char: str) -> bool:
    """Tell whether pypinyin reads a character, with phones of the symbol set."""
    [(syllable, _)] = read_word(char)
    return syllable.isascii() and not unknown_phones(filter(None, split_syllable(syllable)))


def is_phrase(word: str) -> bool:
    """Tell whether pypinyin's dictionary has a word, rather than its characters alone."""
    from pypinyin.constants import PHRASES_DICT

    return word in PHRASES_DICT


@functools.lru_cache(maxsize=65536)
def read_word(word: str) -> list[Syllable]:
    """Return pypinyin's reading of a word by itself.

    Returns:
        Per character its syllable without the tone, and the tone, 1 to 5.
    """
    from pypinyin import Style, lazy_pinyin

    read = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True)
    return [_cut_tone(syllable) for syllable in read]


def _cut_tone(syllable: str) -> Syllable:
    if syllable[-1].isdigit():
        return syllable[:-1], int(syllable[-1])
    return syllable, 5
