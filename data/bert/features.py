"""BERT features: a vector a token of the text, from the third layer from the end. A model is a folder or a hub name."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.bert.tokenizer import VOCABULARIES, WEIGHTS, find_file, load_tokenizer
from data.text.front_end import FrontEndError, Phonemes, hash_files

UNUSED_LAYERS = 2
"""The features are hidden_states[-3]: the last two layers change nothing, and are not loaded."""

_MODEL_TYPES = ("bert", "deberta-v2")


class BertFeatures:
    """A BERT model that gives features a token.

    Attributes:
        tokenizer: What cut, or has to cut, the texts into tokens.
        width: Numbers a token.
        identity: A hash of the configuration, the weights, the vocabulary and the revision.
    """

    def __init__(
        self,
        path_or_name: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Loads a model.

        Args:
            path_or_name: A folder as save_pretrained writes it, or a name on the hub.
            revision: Of a hub name.
            device: To compute on.
            dtype: To compute in. A published configuration may say float16, which some CPUs cannot
                do.
        """
        self._files = [
            find_file(path_or_name, revision, *names)
            for names in (("config.json",), VOCABULARIES, WEIGHTS)
        ]
        self._revision = revision
        self.tokenizer = load_tokenizer(path_or_name, revision)
        self._model = _load_model(self._files[0].parent, dtype).to(device)
        self.width: int = self._model.config.hidden_size

    @functools.cached_property
    def identity(self) -> str:
        """See the class. The weights are read once for it."""
        return hashlib.sha256(f"{hash_files(self._files)} {self._revision}".encode()).hexdigest()[
            :16
        ]

    def __call__(self, batch: Sequence[Phonemes]) -> list[np.ndarray]:
        """The features of texts.

        Args:
            batch: What a front end made of the texts, with its BERT tokens.

        Returns:
            float16 [N, width] a text, N its tokens with [CLS] and [SEP]: the length of its word2ph.
        """
        if not batch:
            return []
        ids = [self._ids(phonemes) for phonemes in batch]
        lengths = [len(row) for row in ids]
        shape = (len(ids), max(lengths))
        input_ids, attention_mask = (
            torch.zeros(shape, dtype=torch.long),
            torch.zeros(shape, dtype=torch.long),
        )
        for index, row in enumerate(ids):
            input_ids[index, : len(row)] = torch.tensor(row)
            attention_mask[index, : len(row)] = 1
        device = self._model.device
        with torch.inference_mode():
            output = self._model(
                input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)
            )
        hidden = output.last_hidden_state.to(torch.float16).cpu().numpy()  # [B, longest N, width]
        return [hidden[index, :length].copy() for index, length in enumerate(lengths)]

    def _ids(self, phonemes: Phonemes) -> list[int]:
        """The numbers of a text's tokens, [N] with [CLS] and [SEP], after checking them against word2ph."""
        tokens, text = phonemes.bert_tokens, phonemes.bert_text
        if tokens is None:
            raise ValueError(
                "the EN front end needs the BERT model's tokenizer: EnglishFrontEnd(features.tokenizer)"
            )
        if len(tokens) + 2 != len(phonemes.word2ph):
            detail = f"{len(tokens)} + 2 tokens, but word2ph has {len(phonemes.word2ph)} entries"
            raise FrontEndError("bert_token_mismatch", text, detail)
        config = self._model.config
        if (
            getattr(config, "position_biased_input", True)
            and len(tokens) + 2 > config.max_position_embeddings
        ):
            detail = f"{len(tokens)} + 2 tokens, but BERT reads {config.max_position_embeddings}"
            raise FrontEndError("text_too_long", text, detail)
        return self.tokenizer.ids(["[CLS]", *tokens, "[SEP]"])


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The layers that the features need, in evaluation mode."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.model_type not in _MODEL_TYPES:
        raise ValueError(
            f"a BERT model of type {config.model_type} in {folder}: use one of {', '.join(_MODEL_TYPES)}"
        )
    if config.num_hidden_layers <= UNUSED_LAYERS:
        raise ValueError(
            f"the BERT model in {folder} has {config.num_hidden_layers} layers, and must have more than 2"
        )
    config.num_hidden_layers -= UNUSED_LAYERS
    options = {"add_pooling_layer": False} if config.model_type == "bert" else {}
    with quiet_transformers():
        model = transformers.AutoModel.from_pretrained(
            folder, config=config, dtype=dtype, **options
        )
    return model.eval()


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers from listing the weights of the layers left out, and from drawing bars for a second's work."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
