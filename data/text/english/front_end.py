"""English: inflect spells numbers out, words are read piece by piece, as BERT's tokenizer cuts them."""

import re
from collections.abc import Callable, Iterable
from importlib.metadata import version

from data.text.english.gru import WEIGHTS_FILE
from data.text.english.numbers import spell_numbers
from data.text.english.words import DICTIONARY_FILE, Phone, read_word
from data.text.front_end import Phonemes, hash_files, share_out, validate
from data.text.symbols import PUNCTUATION

Tokenizer = Callable[[str], list[str]]
"""Cuts a text into sentencepiece's pieces; one that begins a word begins with WORD_START."""
WORD_START = "▁"

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
_SIMPLE_PIECE = re.compile(r"[^\W_]+|[^\s]")


def normalise(text: str) -> str:
    """Spells numbers out, reduces punctuation, and puts a space after it."""
    text = spell_numbers(text.strip("\n")).translate(_PUNCTUATION_OF)
    return _JOINED_TO_PUNCTUATION.sub(r"\1 \2", text)


def cut_simply(text: str) -> list[str]:
    """What stands in for BERT's tokenizer where there is none: words, and signs by themselves."""
    return [
        (WORD_START if index == 0 else "") + piece
        for word in text.split()
        for index, piece in enumerate(_SIMPLE_PIECE.findall(word))
    ]


def _words(pieces: list[str]) -> Iterable[list[str]]:
    """Groups pieces to words, which share phones among their pieces.

    A sign of punctuation belongs to the word before it if a piece that is none follows without a
    space.
    """
    word: list[str] = []
    for index, piece in enumerate(pieces):
        following = pieces[index + 1] if index + 1 < len(pieces) else WORD_START
        inside = following not in PUNCTUATION and not following.startswith(WORD_START)
        if word and (
            piece.startswith(WORD_START) or (set(piece) <= set(PUNCTUATION) and not inside)
        ):
            yield word
            word = []
        word.append(piece)
    if word:
        yield word


def _read(pieces: list[str]) -> list[Phone]:
    """The phones of a word: of each of its pieces, or of it as a whole if an apostrophe joins them."""
    plain = [piece.removeprefix(WORD_START) for piece in pieces]
    joined = "".join(plain)
    if "'" in joined:
        plain = [joined]
    return [phone for piece in plain for phone in read_word(piece)]


class EnglishFrontEnd:
    """The FrontEnd of EN: a piece takes its share of its word's phones, which may be none."""

    language = "EN"
    version = "en-2"

    def __init__(self, tokenizer: Tokenizer | None = None):
        """Takes a tokenizer, which decides the phones, for each piece is read by itself.

        Args:
            tokenizer: That of the BERT model whose features go with the phones
                (`data.bert.features.SentencePiece`); one with an attribute `identity` is named in
                `data_hash`. Without one, whole words are read, and the result has no `bert_tokens`.
        """
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> Phonemes:
        """Reads a text; see `FrontEnd`."""
        norm_text = normalise(text)
        pieces = (self.tokenizer or cut_simply)(norm_text)
        phones, tones, word2ph = ["_"], [0], [1]
        for word in _words(pieces):
            read = _read(word)
            phones += [phone for phone, _ in read]
            tones += [tone for _, tone in read]
            word2ph += share_out(len(read), len(word))
        phones, tones, word2ph = [*phones, "_"], [*tones, 0], [*word2ph, 1]
        bert_tokens = pieces if self.tokenizer else None
        return validate(
            Phonemes(norm_text, phones, tones, word2ph, norm_text, bert_tokens), self.language, text
        )

    def data_hash(self) -> str:
        """A hash of the dictionary and the network, inflect's version, and the tokenizer's identity."""
        tokenizer = getattr(self.tokenizer, "identity", type(self.tokenizer).__name__)
        return f"{hash_files([DICTIONARY_FILE, WEIGHTS_FILE])}-inflect-{version('inflect')}-{tokenizer}"
