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
from data.text.chinese.words import read_word, split_syllable, tagger
from data.text.front_end import Phonemes, hash_files, validate
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
_CLAUSE = re.compile(rf"[{_MARKS}]|[^{_MARKS}]+")


@functools.cache
def _normalizer() -> Any:
    from wetext import Normalizer

    return Normalizer(lang="zh", operator="tn", traditional_to_simple=True, full_to_half=True)


def normalise(text: str) -> str:
    """Spell numbers out, and keep only simplified characters and the symbol set's punctuation."""
    text = _normalizer().normalize(text).replace("...", "…")
    return _NOT_READ.sub("", text.translate(_PUNCTUATION_OF).translate(_SYLLABLE_OF))


class ChineseFrontEnd:
    """The front end of ZH: two phones per character, one per punctuation mark."""

    language = "ZH"
    version = "zh-2"

    def __call__(self, text: str) -> Phonemes:
        """Read a text; see `FrontEnd`."""
        norm_text = normalise(text)
        phones = ["_"]
        tones = [0]
        word2ph = [1]
        for clause in _CLAUSE.findall(norm_text):
            if clause in PUNCTUATION:
                phones.append(clause)
                tones.append(0)
                word2ph.append(1)
                continue
            tagged = [(pair.word, pair.flag) for pair in tagger().lcut(clause)]
            for word, word_tones in sandhi.tones(tagged):
                for (syllable, _), tone in zip(read_word(word), word_tones, strict=True):
                    phones += split_syllable(syllable)
                    tones += [tone, tone]
                    word2ph.append(2)
        result = Phonemes(
            norm_text=norm_text,
            phones=[*phones, "_"],
            tones=[*tones, 0],
            word2ph=[*word2ph, 1],
            bert_text=norm_text,
            bert_tokens=list(norm_text),
        )
        return validate(result, self.language, text)

    def data_hash(self) -> str:
        """Return a hash of jieba's dictionary and our lists of words, and all package versions."""
        lists = sorted(Path(__file__).parent.glob("*_words.txt"))
        jieba = find_spec("jieba")  # found, not imported, which warns
        assert jieba is not None and jieba.origin is not None
        dictionary = hash_files([Path(jieba.origin).with_name("dict.txt"), *lists])
        versions = [f"{name}-{version(name)}" for name in ("jieba", "pypinyin", "wetext")]
        return "-".join([dictionary, *versions])
