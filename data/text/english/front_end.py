"""English: inflect spells numbers out; the dictionary reads words, a network those it lacks."""

import re
from collections.abc import Callable, Iterable
from importlib.metadata import version

from data.text.english.gru import WEIGHTS_FILE
from data.text.english.numbers import spell_numbers
from data.text.english.spoken import speak
from data.text.english.words import DICTIONARY_FILE, Phone, in_compound, read_word
from data.text.front_end import OURS, Phonemes, hash_files, is_ours, share_out, validate
from data.text.spoken.cleaning import Spoken
from data.text.symbols import PUNCTUATION

WORD_START = "▁"
Tokenizer = Callable[[str], list[str]]
"""Cuts a text into sentencepiece's pieces; one that begins a word begins with WORD_START."""

_PUNCTUATION_OF = str.maketrans(
    {
        **dict.fromkeys("，、：；·・", ","),
        **dict.fromkeys("。．\n", "."),
        **dict.fromkeys('"“”‘’()[]（）《》【】「」『』〈〉', "'"),
        **dict.fromkeys("—–−～~", "-"),
        "！": "!",
        "？": "?",
        "…": "...",
    }
)
_JOINED_TO_PUNCTUATION = re.compile(r"([,;.?!])(\w)")
_NOT_READ = re.compile(rf"[^\s\u00aa-\u024fA-Za-zＡ-Ｚａ-ｚ{re.escape(''.join(PUNCTUATION))}]")
_SIMPLE_PIECE = re.compile(r"[^\W_]+|[^\s]")


def normalise(text: str) -> str:
    """Spell numbers out, reduce punctuation, and put a space after it."""
    text = spell_numbers(text.strip("\n")).translate(_PUNCTUATION_OF)
    return _JOINED_TO_PUNCTUATION.sub(r"\1 \2", text)


def _as_reference(text: str) -> Spoken:
    norm_text = normalise(text)
    return Spoken(norm_text, "".join(_NOT_READ.findall(norm_text)))


def cut_simply(text: str) -> list[str]:
    """Cut a text without BERT's tokenizer, into words and signs."""
    return [
        (WORD_START if index == 0 else "") + piece
        for word in text.split()
        for index, piece in enumerate(_SIMPLE_PIECE.findall(word))
    ]


def _words(pieces: list[str]) -> Iterable[list[str]]:
    """Group pieces into words, which share phones among their pieces.

    A punctuation mark belongs to the word before it if a piece that is none follows without a
    space.
    """
    word: list[str] = []
    for index, piece in enumerate(pieces):
        following = pieces[index + 1] if index + 1 < len(pieces) else WORD_START
        inside = following not in PUNCTUATION and not following.startswith(WORD_START)
        stands_alone = set(piece) <= set(PUNCTUATION) and not inside
        if word and (piece.startswith(WORD_START) or stands_alone):
            yield word
            word = []
        word.append(piece)
    if word:
        yield word


def _read(pieces: list[str], by_piece: bool) -> list[Phone]:
    """Return the phones of a word, read whole, or each piece by itself.

    Args:
        pieces: the word as the tokenizer cut it.
        by_piece: read pieces, unless an apostrophe joins them, as the reference trainer does. Where
            the tokenizer knows a word only in pieces, they may sound otherwise: `c`, `ow`.
    """
    plain = [piece.removeprefix(WORD_START) for piece in pieces]
    word = "".join(plain)
    parts = plain if by_piece and "'" not in word else in_compound(word)
    return [phone for part in parts for phone in read_word(part)]


class EnglishFrontEnd:
    """The front end of EN: a piece takes its share of its word's phones, which may be none."""

    language = "EN"
    version = "en-4"

    def __init__(self, tokenizer: Tokenizer | None = None, normaliser: str = OURS):
        """Take a tokenizer, which decides what phones BERT's features go with.

        Args:
            tokenizer: tokenizer of the BERT model whose features go with the phones
                (`data.bert.tokenizer.SentencePiece`); one with an attribute `identity` is named in
                `data_hash`. Without one, the result has no `bert_tokens`.
            normaliser: one of NORMALISERS. With `ours` the phones do not depend on the tokenizer;
                `reference` reads each of its pieces by itself.
        """
        self.tokenizer = tokenizer
        self.normaliser = normaliser
        if not is_ours(normaliser):
            self.version = "en-2"

    def __call__(self, text: str) -> Phonemes:
        """Read a text; see `FrontEnd`."""
        spoken = speak(text) if self.normaliser == OURS else _as_reference(text)
        norm_text = spoken.text
        pieces = (self.tokenizer or cut_simply)(norm_text)
        phones = ["_"]
        tones = [0]
        word2ph = [1]
        for word in _words(pieces):
            read = _read(word, by_piece=not is_ours(self.normaliser))
            phones += [phone for phone, _ in read]
            tones += [tone for _, tone in read]
            word2ph += share_out(len(read), len(word))
        result = Phonemes(
            norm_text=norm_text,
            phones=[*phones, "_"],
            tones=[*tones, 0],
            word2ph=[*word2ph, 1],
            bert_text=norm_text,
            bert_tokens=pieces if self.tokenizer else None,
            unread=spoken.unread,
        )
        return validate(result, self.language, text)

    def data_hash(self) -> str:
        """Return a hash of dictionary and network, inflect's version, the tokenizer's identity."""
        files = hash_files([DICTIONARY_FILE, WEIGHTS_FILE])
        tokenizer = getattr(self.tokenizer, "identity", type(self.tokenizer).__name__)
        ours = f"-anyascii-{version('anyascii')}" if self.normaliser == OURS else ""
        return f"{files}-inflect-{version('inflect')}{ours}-{tokenizer}"
