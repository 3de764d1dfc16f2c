"""Words of Mandarin: jieba finds them, pypinyin reads them, and their pinyin becomes symbols."""

import functools
import warnings
from typing import Any

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


@functools.lru_cache(maxsize=65536)
def read_word(word: str) -> list[tuple[str, int]]:
    """Return pypinyin's reading of a word by itself.

    Returns:
        Per character its syllable without the tone, and the tone, 1 to 5.
    """
    from pypinyin import Style, lazy_pinyin

    read = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True)
    return [_cut_tone(syllable) for syllable in read]


def _cut_tone(syllable: str) -> tuple[str, int]:
    if syllable[-1].isdigit():
        return syllable[:-1], int(syllable[-1])
    return syllable, 5
