"""Tokenizers of BERT models, without the models.

What a model's folder holds decides how its texts are cut: spm.model (DeBERTa, EN) by sentencepiece
itself, vocab.txt (ZH, JP) character by character, because the front ends leave nothing in those
texts that BERT's own tokenizers cut otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data.text.front_end import hash_files

VOCABULARIES = ("spm.model", "vocab.txt")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Tokenizer(Protocol):
    """What cuts a text into tokens, and numbers them.

    Attributes:
        identity: hash of the vocabulary.
    """

    identity: str

    def __call__(self, text: str) -> list[str]:
        """Return the tokens of a text, without [CLS] and [SEP]."""

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the numbers of tokens; of one that is not in the vocabulary, that of [UNK]."""


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
    """Find the first of some files that a model has.

    Args:
        path_or_name: folder, or a name on the hub (taken from the hub's local cache if it is
            there).
        revision: branch, tag or commit of a name on the hub.
        *names: names of the files, the best one first.

    Raises:
        ValueError: there is none of them, or the hub does not give it.
    """
    if Path(path_or_name).is_dir():
        paths = (Path(path_or_name) / name for name in names)
        found = next((path for path in paths if path.is_file()), None)
    else:
        downloads = (_download(path_or_name, revision, name) for name in names)
        found = next((path for path in downloads if path is not None), None)
    if found is None:
        raise ValueError(f"the BERT model {path_or_name} has none of: {', '.join(names)}")
    return found


def _download(model: str, revision: str | None, name: str) -> Path | None:
    """Fetch a file of the hub; None if the model has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        # an entry that is not found locally is one that the hub was not asked for
        unreachable = isinstance(error, LocalEntryNotFoundError)
        if isinstance(error, EntryNotFoundError) and not unreachable:
            return None
        raise ValueError(
            f"the BERT model {model} is no folder, and the hub has not given it: {error}"
        ) from error


def load_tokenizer(path_or_name: str, revision: str | None = None) -> Tokenizer:
    """Load the tokenizer of a model, without its weights."""
    path = find_file(path_or_name, revision, *VOCABULARIES)
    return SentencePiece(path) if path.name == VOCABULARIES[0] else Characters(path)
