"""Tokenizers of BERT models, without the models.

What a model's folder holds decides how its texts are cut: spm.model (DeBERTa, EN) by sentencepiece
itself, vocab.txt (ZH, JP) character by character, for the front ends leave nothing in those texts
that BERT's own tokenizers would cut otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data.text.front_end import hash_files

VOCABULARIES = ("spm.model", "vocab.txt")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Tokenizer(Protocol):
    """Cuts a text into tokens, and numbers them.

    Attributes:
        identity: A hash of the vocabulary.
    """

    identity: str

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text, without [CLS] and [SEP]."""

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """The numbers of tokens; of one that is not in the vocabulary, that of [UNK]."""


class SentencePiece:
    """The tokenizer of the DeBERTa models. It normalises as the model's file says."""

    def __init__(self, path: Path):
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.identity = hash_files([path])

    def __call__(self, text: str) -> list[str]:
        """See `Tokenizer`."""
        return self._processor.encode(text, out_type=str)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """See `Tokenizer`."""
        return [self._processor.piece_to_id(token) for token in tokens]


class Characters:
    """The tokenizer of models whose vocabulary is of characters."""

    def __init__(self, path: Path):
        tokens = path.read_text(encoding="utf-8").split("\n")
        self._ids = {token.rstrip("\r"): index for index, token in enumerate(tokens)}
        self._unknown = self._ids["[UNK]"]
        self.identity = hash_files([path])

    def __call__(self, text: str) -> list[str]:
        """See `Tokenizer`."""
        return list(text)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """See `Tokenizer`."""
        return [self._ids.get(token, self._unknown) for token in tokens]


def find_file(path_or_name: str, revision: str | None, *names: str) -> Path:
    """The first of some files that a model has.

    Args:
        path_or_name: A folder, or a name on the hub (taken from the hub's local cache where it is
            there).
        revision: Of a hub name: a branch, tag or commit.
        *names: The files, the best one first.
    """
    if Path(path_or_name).is_dir():
        for name in names:
            if (Path(path_or_name) / name).is_file():
                return Path(path_or_name) / name
        raise ValueError(f"the BERT model {path_or_name} has none of: {', '.join(names)}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    for name in names:
        try:
            return Path(hf_hub_download(path_or_name, name, revision=revision))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
            if isinstance(error, EntryNotFoundError) and not isinstance(
                error, LocalEntryNotFoundError
            ):
                continue
            raise ValueError(
                f"the BERT model {path_or_name} is no folder, and the hub has not given it: {error}"
            ) from error
    raise ValueError(f"the BERT model {path_or_name} has none of: {', '.join(names)}")


def load_tokenizer(path_or_name: str, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a model, without its weights."""
    path = find_file(path_or_name, revision, *VOCABULARIES)
    return SentencePiece(path) if path.name == VOCABULARIES[0] else Characters(path)
