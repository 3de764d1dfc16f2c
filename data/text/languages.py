"""The languages: one entry per language, from which everything else about languages follows.

That is: its number and its tones' numbers (`data.text.symbols`), its front end, its BERT model
(`data.config.BertConfig`) and the projection of that model's features, its name in
`train.freeze`, its mark in texts, and how recognition errors of its syntheses are counted. A new
language is one entry at the end of `_TABLE` and the file of its front end; docs/text.md has the
steps.

The order is part of the file format: published weights index their embeddings with the numbers
that follow from it. Entries are therefore only ever appended.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

CharacterRange = tuple[int, int]
"""Code points from the first one up to, but without, the second one."""

_HAN: CharacterRange = (0x4E00, 0x9FA6)
_KANA: CharacterRange = (0x3040, 0x3100)


@dataclass(frozen=True)
class RandomBert:
    """The tiny BERT model that `random` makes in place of a published one (`data.bert.tiny`).

    Attributes:
        architecture: architecture of the published model.
        characters: its vocabulary beside ASCII, for a model that reads character by character.
        words: file in data/bert/ of the words that sentencepiece learns its pieces from, for a
            model that reads pieces of words; empty for one that reads characters.
    """

    architecture: Literal["bert", "deberta-v2"] = "bert"
    characters: tuple[CharacterRange, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Language:
    """A language.

    Attributes:
        code: name in transcripts, marks and shards, in capitals.
        tones: number of its tones, counted from 0 (punctuation and silence).
        front_end: `module:class` of its front end, see `data.text.front_end.FrontEnd`.
        projection: name of the text encoder's layer that takes its BERT features; published
            weights fix the first three.
        iso: ISO 639-1 code, for speech recognisers.
        joiner: what stands between the words of two lines that are joined.
        error_unit: what errors of a speech recogniser are counted in.
        aliases: other names of it in transcripts, in small letters, beside `code` and `iso`.
        phones: its phones that `data.text.symbols.SYMBOLS` lacks.
        settings: option of the front end -> key below `data` that decides it, as pairs.
        readings: `module:function` of what makes phones and tones of a reading in
            data.text.readings; empty: these are given as phones.
        reads_tokens: whether the front end needs the tokenizer of the BERT model, as its option
            `tokenizer`.
        random_bert: what a `random` BERT model of the language looks like.
    """

    code: str
    tones: int
    front_end: str
    projection: str
    iso: str
    joiner: str
    error_unit: Literal["words", "characters"]
    aliases: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    readings: str = ""
    reads_tokens: bool = False
    random_bert: RandomBert = field(default_factory=RandomBert)

    @property
    def key(self) -> str:
        """Return its name in configuration keys, such as `zh` of data.bert.zh."""
        return self.code.lower()

    @property
    def freeze_name(self) -> str:
        """Return what `train.freeze` calls the projection of its features, such as `zh_bert`."""
        return f"{self.key}_bert"

    @property
    def feature_name(self) -> str:
        """Return the name of its BERT features among a network's inputs, such as `ja_bert`."""
        return self.projection.removesuffix("_proj")


_TABLE = (
    Language(
        code="ZH",
        tones=6,
        front_end="data.text.chinese.front_end:ChineseFrontEnd",
        projection="bert_proj",
        iso="zh",
        aliases=(
            "zh-cn",
            "zh-tw",
            "zh-hans",
            "zh-hant",
            "cn",
            "cmn",
            "zho",
            "chi",
            "chinese",
            "mandarin",
        ),
        joiner="",
        error_unit="characters",
        settings=(("normaliser", "text.normaliser"),),
        readings="data.text.chinese.words:phones_of_pinyin",
        random_bert=RandomBert("bert", characters=(_HAN,)),
    ),
    Language(
        code="JP",
        tones=2,
        front_end="data.text.japanese.front_end:JapaneseFrontEnd",
        projection="ja_bert_proj",
        iso="ja",
        aliases=("ja-jp", "jpn", "japanese"),
        joiner="",
        error_unit="characters",
        settings=(("engine", "japanese_engine"), ("normaliser", "text.normaliser")),
        readings="data.text.japanese.kana:phones_of_kana",
        random_bert=RandomBert("deberta-v2", characters=(_HAN, _KANA)),
    ),
    Language(
        code="EN",
        tones=4,
        front_end="data.text.english.front_end:EnglishFrontEnd",
        projection="en_bert_proj",
        iso="en",
        aliases=("en-us", "en-gb", "eng", "english"),
        joiner=" ",
        error_unit="words",
        settings=(("normaliser", "text.normaliser"),),
        readings="data.text.english.words:phones_of_arpabet",
        reads_tokens=True,
        random_bert=RandomBert("deberta-v2", words="common_english_words.txt"),
    ),
)

LANGUAGES: dict[str, Language] = {}
"""Code -> language, in the order of their numbers."""

PUBLISHED = _TABLE[:3]
"""The languages of published weights, which every network has."""


def register(language: Language) -> None:
    """Append a language to the table.

    Raises:
        ValueError: its code or its projection is taken, or it cannot be a mark in texts.
    """
    if not (language.code.isalpha() and language.code.isascii() and language.code.isupper()):
        raise ValueError(f"language {language.code!r}: its code must be capital letters A to Z")
    if language.code in LANGUAGES:
        raise ValueError(f"language {language.code} is there already")
    for other in LANGUAGES.values():
        if other.projection == language.projection:
            raise ValueError(
                f"language {language.code}: {other.code} has the projection {other.projection} too"
            )
    LANGUAGES[language.code] = language


def find(code: str) -> Language:
    """Return the language of a code.

    Raises:
        ValueError: there is none.
    """
    if code not in LANGUAGES:
        raise ValueError(f"unknown language {code!r}: use one of {', '.join(LANGUAGES)}")
    return LANGUAGES[code]


def code_of(name: str) -> str | None:
    """Return the code of a language as transcripts name it: zh, ja, EN, en_US; None if unknown."""
    wanted = name.strip().lower().replace("_", "-")
    for language in LANGUAGES.values():
        if wanted in (language.code.lower(), language.iso, *language.aliases):
            return language.code
    return None


def count_tones(languages: Sequence[Language]) -> int:
    """Return how many tones languages have together."""
    return sum(language.tones for language in languages)


def units(text: str, language: str) -> list[str]:
    """Return what recognition errors are counted in: words or characters, without punctuation."""
    words = re.sub(r"[^\w']+", " ", text.lower()).split()
    return words if LANGUAGES[language].error_unit == "words" else list("".join(words))


for _language in _TABLE:
    register(_language)
