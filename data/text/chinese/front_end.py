"""Mandarin: a text becomes pinyin with its tones.

WeText spells numbers out, jieba finds the words, pypinyin reads them, sandhi sets the tones.
"""

import functools
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.text.chinese import sandhi
from data.text.chinese.reading import read_clause
from data.text.chinese.spoken import speak
from data.text.chinese.words import read_word, split_syllable, tagger
from data.text.english.words import DICTIONARY_FILE
from data.text.english.words import read_word as read_english
from data.text.front_end import OURS, Phonemes, hash_files, is_ours, share_out, validate
from data.text.spoken.cleaning import leave_out
from data.text.symbols import PUNCTUATION

_PUNCTUATION_OF = str.maketrans(
    {
        **dict.fromkeys("，、·：；", ","),
        "。": ".",
        **dict.fromkeys('"“”‘’《》【】（）()[]「」『』〈〉', "'"),
        **dict.fromkeys("—–～~", "-"),
        "！": "!",
        "？": "?",
    }
)
# Hesitations that pypinyin reads as bare consonants, which the symbol set lacks: the nearest
# syllables stand in for them.
_SYLLABLE_OF = str.maketrans("嗯呣", "恩母")
_MARKS = re.escape("".join(PUNCTUATION))
_NOT_READ = re.compile(rf"[^一-龥{_MARKS}]+")
_CLAUSE_WITH_WORDS = re.compile(rf"[{_MARKS}]|[a-z][a-z' ]*[a-z]|[a-z]|[^{_MARKS}a-z ]+")
_CLAUSE = re.compile(rf"[{_MARKS}]|[^{_MARKS}]+")


@functools.cache
def _normalizer() -> Any:
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn", traditional_to_simple=True, full_to_half=True)


def normalise(text: str) -> str:
    """Spell numbers out, and keep only simplified characters and the symbol set's punctuation."""
    return _NOT_READ.sub("", _written_out(text))


def _written_out(text: str) -> str:
    text = _normalizer().normalize(text).replace("...", "…")
    return text.translate(_PUNCTUATION_OF).translate(_SYLLABLE_OF)


Said = tuple[int, list[tuple[str, int]]]
"""A number of BERT's tokens, and their phones with tones."""


def _read_as_reference(clause: str) -> list[Said]:
    tagged = [(pair.word, pair.flag) for pair in tagger().lcut(clause)]
    return [
        (1, [(phone, tone) for phone in split_syllable(syllable)])
        for word, word_tones in sandhi.tones(tagged)
        for (syllable, _), tone in zip(read_word(word), word_tones, strict=True)
    ]


def _read_clause(clause: str) -> list[Said]:
    return [
        (1, [(phone, tone) for phone in split_syllable(syllable)])
        for _, syllables in read_clause(clause)
        for syllable, tone in syllables
    ]


def _read_english(words: str) -> list[Said]:
    """Read English words with their own phones; their stress stands for the tone."""
    return [(len(word), list(read_english(word))) for word in words.split()]


class ChineseFrontEnd:
    """The front end of ZH: two phones per character, one per punctuation mark."""

    language = "ZH"
    version = "zh-3"

    def __init__(self, normaliser: str = OURS):
        """Take one of NORMALISERS."""
        self.normaliser = normaliser
        if not is_ours(normaliser):
            self.version = "zh-2"

    def __call__(self, text: str) -> Phonemes:
        """Read a text; see `FrontEnd`."""
        ours = self.normaliser == OURS
        spoken = speak(text) if ours else leave_out(_written_out(text), _NOT_READ)
        phones = ["_"]
        tones = [0]
        word2ph = [1]
        for clause in (_CLAUSE_WITH_WORDS if ours else _CLAUSE).findall(spoken.text):
            if clause in PUNCTUATION:
                read = [(1, [(clause, 0)])]
            elif clause[0].isascii():
                read = _read_english(clause)
            else:
                read = _read_clause(clause) if ours else _read_as_reference(clause)
            for tokens, said in read:
                phones += [phone for phone, _ in said]
                tones += [tone for _, tone in said]
                word2ph += share_out(len(said), tokens)
        text_of_bert = spoken.text.replace(" ", "")
        result = Phonemes(
            norm_text=spoken.text,
            phones=[*phones, "_"],
            tones=[*tones, 0],
            word2ph=[*word2ph, 1],
            bert_text=text_of_bert,
            bert_tokens=list(text_of_bert),
            unread=spoken.unread,
        )
        return validate(result, self.language, text)

    def data_hash(self) -> str:
        """Return a hash of jieba's dictionary and our lists of words, and all package versions."""
        lists = sorted(Path(__file__).parent.glob("*_words.txt"))
        jieba = find_spec("jieba")  # found, not imported, which warns
        assert jieba is not None and jieba.origin is not None
        files = [Path(jieba.origin).with_name("dict.txt"), *lists]
        packages = ["jieba", "pypinyin", "wetext"]
        if self.normaliser == OURS:
            files += [Path(__file__).with_name("readings.txt"), DICTIONARY_FILE]
            packages.append("opencc")
        versions = [f"{name}-{version(name)}" for name in packages]
        return "-".join([hash_files(files), *versions])
