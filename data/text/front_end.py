"""What a language's front end is, what it returns, and how its result becomes the network's input.

A new language is one file with a class like the three here, registered by a line in `_FRONT_ENDS`
and one in `symbols.TONE_COUNTS` (and its phones, where they are new). Training also needs its BERT
model in `data.config.BertConfig`, and a text encoder with a place for that model's features:
published weights have three.
"""

import hashlib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.text.symbols import PAD, SYMBOL_IDS, TONE_COUNTS, language_id, phone_ids, tone_ids

REASONS = (
    "empty_text",
    "unknown_symbol",
    "unknown_tone",
    "word2ph_mismatch",
    "bert_token_mismatch",
    "text_too_long",
)
"""Why a text has no phones, for the ledger of rejected lines."""


class FrontEndError(ValueError):
    """A text that cannot be turned into phones.

    Attributes:
        reason: A word for the ledger of rejected lines: empty_text, unknown_symbol, unknown_tone,
            word2ph_mismatch, bert_token_mismatch or text_too_long.
        text: The text as it was given.
    """

    def __init__(self, reason: str, text: str, detail: str):
        assert reason in REASONS, reason
        shown = text if len(text) <= 200 else text[:200] + "…"
        super().__init__(f"{reason}: {detail} (text: {shown!r})")
        self.reason = reason
        self.text = text
        self.detail = detail

    def __reduce__(self):
        # exceptions are pickled on their way from a worker; the default passes the message alone
        return type(self), (self.reason, self.text, self.detail)


@dataclass(frozen=True)
class Phonemes:
    """A text as phones.

    Attributes:
        norm_text: The text with numbers spelled out and punctuation reduced to that of
            `symbols.PUNCTUATION`.
        phones: [P] symbols; the first and the last are "_".
        tones: [P] tones counted within the language.
        word2ph: [N] phones a BERT token, its [CLS] and [SEP] (the two "_") included; the sum is P.
            May hold 0.
        bert_text: The text that BERT reads; not always norm_text.
        bert_tokens: [N - 2] BERT's tokens, without [CLS] and [SEP]; None if the front end had no
            tokenizer.
    """

    norm_text: str
    phones: list[str]
    tones: list[int]
    word2ph: list[int]
    bert_text: str
    bert_tokens: list[str] | None


class FrontEnd(Protocol):
    """Turns a text of one language into phones.

    Version and data hash are part of the content address of what was prepared
    (`data.corpus.recipe`).

    Attributes:
        language: One of `symbols.LANGUAGE_IDS`.
        version: Changes when the code's results may change, so that nothing prepared before is
            taken for new.
    """

    language: str
    version: str

    def __call__(self, text: str) -> Phonemes:
        """The phones of a text; raises FrontEndError, with the reason, if it has none."""

    def data_hash(self) -> str:
        """The contents of the dictionaries and the versions of the packages that the results depend on."""


_FRONT_ENDS = {
    "ZH": "data.text.chinese.front_end:ChineseFrontEnd",
    "JP": "data.text.japanese.front_end:JapaneseFrontEnd",
    "EN": "data.text.english.front_end:EnglishFrontEnd",
}


def get_front_end(language: str, **options: Any) -> FrontEnd:
    """Makes the front end of a language.

    Args:
        language: ZH, JP or EN.
        **options: Of the language: `engine` for JP ("plus" or "strict"), `tokenizer` for EN.
    """
    if language not in _FRONT_ENDS:
        raise ValueError(
            f"no front end for language {language!r}: use one of {', '.join(_FRONT_ENDS)}"
        )
    # imported here, for each brings its own large libraries
    module, name = _FRONT_ENDS[language].split(":")
    return getattr(importlib.import_module(module), name)(**options)


def validate(phonemes: Phonemes, language: str, text: str) -> Phonemes:
    """Checks what the rest of the program relies on, and returns the same object.

    Args:
        phonemes: A front end's result.
        language: Its language.
        text: The text as it was given, for the message.
    """
    phones, tones, word2ph = phonemes.phones, phonemes.tones, phonemes.word2ph
    if all(phone == PAD for phone in phones):
        raise FrontEndError(
            "empty_text", text, f"nothing to say is left of it ({phonemes.norm_text!r})"
        )
    unknown = sorted({phone for phone in phones if phone not in SYMBOL_IDS})
    if unknown:
        raise FrontEndError(
            "unknown_symbol", text, f"no such symbol: {', '.join(map(repr, unknown))}"
        )
    if any(not 0 <= tone < TONE_COUNTS[language] for tone in tones):
        raise FrontEndError(
            "unknown_tone", text, f"tones {tones} are not all below {TONE_COUNTS[language]}"
        )
    if not sum(word2ph) == len(phones) == len(tones) or min(word2ph) < 0:
        raise FrontEndError(
            "word2ph_mismatch",
            text,
            f"word2ph sums to {sum(word2ph)}, phones are {len(phones)}, tones are {len(tones)}",
        )
    tokens = phonemes.bert_tokens
    if tokens is not None and len(tokens) + 2 != len(word2ph):
        raise FrontEndError(
            "bert_token_mismatch",
            text,
            f"word2ph has {len(word2ph)} entries for {len(tokens)} + 2 tokens",
        )
    return phonemes


def to_sequence(
    phones: Sequence[str], tones: Sequence[int], language: str, add_blank: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phones and tones as the numbers that the text encoder reads.

    Args:
        phones: [P] symbols.
        tones: [P] tones counted within the language.
        language: Of the text.
        add_blank: Put a 0 between all numbers and around them; published models were trained so.

    Returns:
        Phone ids, tone ids and language ids, each int64 [T], T = 2 P + 1 with blanks, else P.
    """
    if len(phones) != len(tones):
        raise ValueError(f"{len(phones)} phones, but {len(tones)} tones")
    columns = [phone_ids(phones), tone_ids(tones, language), [language_id(language)] * len(phones)]
    if not add_blank:
        return tuple(np.asarray(column, dtype=np.int64) for column in columns)  # type: ignore[return-value]
    blank = np.zeros((3, 2 * len(phones) + 1), dtype=np.int64)
    blank[:, 1::2] = columns
    return blank[0], blank[1], blank[2]


def expand_word2ph(word2ph: Sequence[int], add_blank: bool = True) -> np.ndarray:
    """The BERT token that each phone takes its features from.

    Args:
        word2ph: [N] phones a token, without blanks. It is not changed.
        add_blank: As in `to_sequence`: every token then has twice the phones, the first one more.

    Returns:
        Token numbers int64 [T]: `features[token_index]` is [T, width] of features [N, width].
    """
    counts = np.array(word2ph, dtype=np.int64)
    if counts.ndim != 1 or counts.size == 0 or counts.min() < 0:
        raise ValueError(f"word2ph must be a list of numbers from 0, not {word2ph!r}")
    if add_blank:
        counts *= 2
        counts[0] += 1
    return np.repeat(np.arange(len(counts)), counts)


def share_out(phones: int, tokens: int) -> list[int]:
    """Shares a word's phones among its tokens, as evenly as can be, the first ones taking what is left over."""
    each, left = divmod(phones, tokens)
    return [each + (index < left) for index in range(tokens)]


def hash_files(paths: Iterable[Path]) -> str:
    """A hash of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
