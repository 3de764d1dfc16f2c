"""Tiny BERT models with random weights, for tests and demonstrations: the shape of the real ones without a download."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from data.bert.features import quiet_transformers

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
_LAYERS = 4
_PIECES = 4000
_PANGRAM = "The quick brown fox jumps over the lazy dog."
"""Something for sentencepiece to learn from if the texts are few."""


def make_tiny_bert(
    folder: Path | str, language: str, texts: Iterable[str], width: int = 32, seed: int = 0
) -> Path:
    """Writes a model and its vocabulary that `data.bert.features.BertFeatures` loads as it loads the published ones.

    Args:
        folder: To write to.
        language: ZH (BERT), JP or EN (DeBERTa v2), each with the kind of vocabulary that its
            published model has.
        texts: That the vocabulary is made of.
        width: Of the features; a multiple of 4.
        seed: Of the weights.

    Returns:
        The folder.
    """
    import transformers

    if width % 4:
        raise ValueError(f"width must be a multiple of 4, not {width}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = (
        _write_sentencepiece(folder, texts)
        if language == "EN"
        else _write_characters(folder, texts)
    )
    shape: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": width,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 512,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: transformers.PreTrainedModel
        if language == "ZH":
            model = transformers.BertModel(
                transformers.BertConfig(**shape), add_pooling_layer=False
            )
        else:
            relative: dict[str, Any] = {
                "relative_attention": True,
                "position_biased_input": False,
                "pos_att_type": ["p2c", "c2p"],
            }
            model = transformers.DebertaV2Model(
                transformers.DebertaV2Config(**shape, **relative, type_vocab_size=0)
            )
    with quiet_transformers():
        model.save_pretrained(folder)
    return folder


def _write_characters(folder: Path, texts: Iterable[str]) -> int:
    """vocab.txt: the special tokens, ASCII, punctuation and the texts' characters. Returns its size."""
    base = [chr(code) for code in range(0x21, 0x7F)]
    characters = sorted(
        {*base, *"…", *(char for text in texts for char in text if not char.isspace())}
    )
    vocabulary = [*_SPECIAL, *characters]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return len(vocabulary)


def _write_sentencepiece(folder: Path, texts: Iterable[str]) -> int:
    """spm.model: pieces learnt from the texts, and ASCII. Returns its size."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([_PANGRAM, *texts]),
        model_writer=model,
        # merges until words are whole, so that pieces are read as they are with the real model
        model_type="bpe",
        vocab_size=_PIECES,
        hard_vocab_limit=False,
        required_chars="".join(chr(code) for code in range(0x21, 0x7F)),
        num_threads=1,
        minloglevel=2,
        pad_id=0,
        pad_piece="[PAD]",
        bos_id=1,
        bos_piece="[CLS]",
        eos_id=2,
        eos_piece="[SEP]",
        unk_id=3,
        unk_piece="[UNK]",
    )
    (folder / "spm.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
