"""BERT features: one vector per token of a text, from the third layer from the end."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.bert.tokenizer import VOCABULARIES, WEIGHTS, find_file, load_tokenizer
from data.models import download_told
from data.text.front_end import FrontEndError, Phonemes, hash_files

UNUSED_LAYERS = 2
"""The features are hidden_states[-3]: the last two layers change nothing, and are not loaded."""

_MODEL_TYPES = ("bert", "deberta-v2")


class BertFeatures:
    """A BERT model that gives features per token.

    Attributes:
        tokenizer: tokenizer that cut, or has to cut, the texts.
        width: width of the features.
    """

    def __init__(
        self,
        path_or_name: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """Load a model.

        Args:
            path_or_name: folder as save_pretrained writes it, or a name on the hub.
            revision: revision of a name on the hub.
            device: device to compute on.
            dtype: type to compute in. A published configuration may say float16, which some CPUs
                cannot do.
        """
        wanted = (("config.json",), VOCABULARIES, WEIGHTS)
        with download_told(path_or_name, revision):
            self._files = [find_file(path_or_name, revision, *names) for names in wanted]
        self._revision = revision
        self.tokenizer = load_tokenizer(path_or_name, revision)
        self._model = _load_model(self._files[0].parent, dtype).to(device)
        self.width: int = self._model.config.hidden_size

    @functools.cached_property
    def identity(self) -> str:
        """Return a hash of configuration, weights, vocabulary and revision; reads them once."""
        content = f"{hash_files(self._files)} {self._revision}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def __call__(self, batch: Sequence[Phonemes], full_precision: bool = False) -> list[np.ndarray]:
        """Compute the features of texts.

        Args:
            batch: what a front end made of the texts, with its BERT tokens.
            full_precision: return float32, where there is room for it; shards hold float16.

        Returns:
            Per text float16 or float32 [N, width], N its tokens with [CLS] and [SEP]: the length of
            its word2ph.

        Raises:
            FrontEndError: a text is too long for the model, or its tokens and phones do not fit.
        """
        if not batch:
            return []
        ids = [self._ids(phonemes) for phonemes in batch]
        lengths = [len(row) for row in ids]
        input_ids = torch.zeros(len(ids), max(lengths), dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for index, row in enumerate(ids):
            input_ids[index, : len(row)] = torch.tensor(row)
            attention_mask[index, : len(row)] = 1

        device = self._model.device
        with torch.inference_mode():
            output = self._model(
                input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)
            )
        kept = torch.float32 if full_precision else torch.float16
        hidden = output.last_hidden_state.to(kept).cpu().numpy()  # [B, longest N, width]
        return [hidden[index, :length].copy() for index, length in enumerate(lengths)]

    def _ids(self, phonemes: Phonemes) -> list[int]:
        """Return the numbers of a text's tokens, [N] with [CLS] and [SEP]; they fit word2ph."""
        tokens = phonemes.bert_tokens
        text = phonemes.bert_text
        if tokens is None:
            raise ValueError(
                "this front end needs the BERT model's tokenizer, as in "
                "EnglishFrontEnd(features.tokenizer)"
            )
        length = len(tokens) + 2
        if length != len(phonemes.word2ph):
            detail = f"{len(tokens)} + 2 tokens, but word2ph has {len(phonemes.word2ph)} entries"
            raise FrontEndError("bert_token_mismatch", text, detail)
        most = self._most_tokens()
        if most is not None and length > most:
            detail = f"{len(tokens)} + 2 tokens, but BERT reads {most}"
            raise FrontEndError("text_too_long", text, detail)
        return self.tokenizer.ids(["[CLS]", *tokens, "[SEP]"])

    def _most_tokens(self) -> int | None:
        """Return how many tokens the model reads; None for relative positions, without a limit."""
        config = self._model.config
        absolute = getattr(config, "position_biased_input", True)
        return config.max_position_embeddings if absolute else None


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    """Load the layers that the features need, in evaluation mode."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.model_type not in _MODEL_TYPES:
        raise ValueError(
            f"a BERT model of type {config.model_type} in {folder}: "
            f"use one of {', '.join(_MODEL_TYPES)}"
        )
    if config.num_hidden_layers <= UNUSED_LAYERS:
        raise ValueError(
            f"the BERT model in {folder} has {config.num_hidden_layers} layers, "
            f"and must have more than {UNUSED_LAYERS}"
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
    """Keep transformers from listing weights that are left out, and from drawing progress bars."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
