"""What a language's front end is, what it returns, and how its result becomes the network's input.

A new language is one file with a class like those in data/text/chinese, japanese and english, and
an entry in `data.text.languages`.
"""

import hashlib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.text.languages import find
from data.text.symbols import PAD, language_id, phone_ids, tone_ids, unknown_phones

OURS = "ours"
REFERENCE = "reference"
NORMALISERS = (OURS, REFERENCE)
"""How a text is written out before it is read, `data.text.normaliser`.

`reference` reads as the front ends that published models were trained with.
"""

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
        reason: one of REASONS, for the ledger of rejected lines.
        text: the text as it was given.
        detail: what is wrong with it.
        unread: characters of it that no rule read.
    """

    def __init__(self, reason: str, text: str, detail: str, unread: str = ""):
        assert reason in REASONS, reason
        shown = text if len(text) <= 200 else text[:200] + "…"
        super().__init__(f"{reason}: {detail} (text: {shown!r})")
        self.reason = reason
        self.text = text
        self.detail = detail
        self.unread = unread

    def __reduce__(self):
        # exceptions are pickled on their way from a worker; the default passes the message alone
        return type(self), (self.reason, self.text, self.detail, self.unread)


@dataclass(frozen=True)
class Phonemes:
    """A text as phones.

    Attributes:
        norm_text: text with numbers spelled out and punctuation reduced to that of
            `symbols.PUNCTUATION`.
        phones: [P] symbols; the first and the last are "_".
        tones: [P] tones counted within the language.
        word2ph: [N] phones per BERT token, its [CLS] and [SEP] (the two "_") included; the sum is
            P. May hold 0.
        bert_text: text that BERT reads; not always norm_text.
        bert_tokens: [N - 2] BERT's tokens, without [CLS] and [SEP]; None if the front end had no
            tokenizer.
        unread: characters of the text that no rule read, in order; they have no phones.
    """

    norm_text: str
    phones: list[str]
    tones: list[int]
    word2ph: list[int]
    bert_text: str
    bert_tokens: list[str] | None
    unread: str = ""


class FrontEnd(Protocol):
    """What turns a text of one language into phones.

    Version and data hash are part of the content address of what was prepared
    (`data.corpus.recipe`).

    Attributes:
        language: code of the language.
        version: changes when the code's results may change, so that nothing prepared before is
            taken for new.
    """

    language: str
    version: str

    def __call__(self, text: str) -> Phonemes:
        """Return the phones of a text.

        Raises:
            FrontEndError: it has none; says the reason.
        """

    def data_hash(self) -> str:
        """Return a hash of all dictionaries and package versions that the results depend on."""


def get_front_end(language: str, **options: Any) -> FrontEnd:
    """Make the front end of a language.

    Args:
        language: code of the language.
        **options: options of its class: `normaliser` ("ours" or "reference"), `readings` of the
            user's words (word -> reading), `engine` for JP ("plus" or "strict"), and
            `tokenizer` for EN.

    Raises:
        ValueError: an unknown language.
    """
    module, name = find(language).front_end.split(":")
    # imported here, because each brings its own large libraries
    readings = options.pop("readings", None)
    made = getattr(importlib.import_module(module), name)(**options)
    if not readings:
        return made
    from data.text.readings import WithReadings

    tokens = options.get("tokenizer") if find(language).reads_tokens else list
    return WithReadings(made, readings, tokens)


def is_ours(normaliser: str) -> bool:
    """Tell whether a front end reads with our normaliser, or with the reference's.

    Raises:
        ValueError: there is no such normaliser.
    """
    if normaliser not in NORMALISERS:
        raise ValueError(f"no normaliser {normaliser!r}: use one of {', '.join(NORMALISERS)}")
    return normaliser == OURS


def validate(phonemes: Phonemes, language: str, text: str) -> Phonemes:
    """Check what the rest of the program relies on, and return the same object.

    Args:
        phonemes: result of a front end.
        language: code of its language.
        text: text as it was given, for the message.

    Raises:
        FrontEndError: says what is wrong.
    """
    phones = phonemes.phones
    tones = phonemes.tones
    word2ph = phonemes.word2ph
    if all(phone == PAD for phone in phones):
        detail = f"nothing to say is left of it ({phonemes.norm_text!r})"
        raise FrontEndError("empty_text", text, detail, phonemes.unread)
    if unknown := unknown_phones(phones):
        raise FrontEndError(
            "unknown_symbol", text, f"no such symbol: {', '.join(map(repr, unknown))}"
        )
    count = find(language).tones
    if any(not 0 <= tone < count for tone in tones):
        raise FrontEndError("unknown_tone", text, f"tones {tones} are not all below {count}")
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
    """Turn phones and tones into the numbers that the text encoder reads.

    Args:
        phones: [P] symbols.
        tones: [P] tones counted within the language.
        language: code of the language.
        add_blank: put a 0 between all numbers and around them; published models were trained so.

    Returns:
        Phone ids, tone ids and language ids, each int64 [T], T = 2 P + 1 with blanks, else P.
    """
    if len(phones) != len(tones):
        raise ValueError(f"{len(phones)} phones, but {len(tones)} tones")
    languages = [language_id(language)] * len(phones)
    columns = np.array([phone_ids(phones), tone_ids(tones, language), languages], dtype=np.int64)
    if add_blank:
        with_blanks = np.zeros((3, 2 * len(phones) + 1), dtype=np.int64)
        with_blanks[:, 1::2] = columns
        columns = with_blanks
    return columns[0], columns[1], columns[2]


def expand_word2ph(word2ph: Sequence[int], add_blank: bool = True) -> np.ndarray:
    """Return the BERT token that each phone takes its features from.

    Args:
        word2ph: [N] phones per token, without blanks. It is not changed.
        add_blank: as in `to_sequence`: every token then has twice the phones, the first one more.

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
    """Share a word's phones among its tokens, evenly; the first ones take what is left over."""
    each, left = divmod(phones, tokens)
    return [each + (index < left) for index in range(tokens)]


def hash_files(paths: Iterable[Path]) -> str:
    """Return a hash of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
