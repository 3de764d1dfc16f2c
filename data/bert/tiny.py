"""Tiny BERT models with random weights, for tests and demonstrations.

They have the kind of the published models, in layers and vocabulary, without a download.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from data.bert.features import quiet_transformers
from data.text.languages import RandomBert, find

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
_ASCII = [chr(code) for code in range(0x21, 0x7F)]
_HEADS = 4
_LAYERS = 4
_PIECES = 4000
_PANGRAM = "The quick brown fox jumps over the lazy dog."
"""Something for sentencepiece to learn from if the texts are few."""


def make_random_bert(folder: Path | str, language: str, width: int, zeros: bool = False) -> Path:
    """Write the model that the configuration calls `random`, or `zeros`; see `make_tiny_bert`.

    Its vocabulary depends on the language alone, so that another line in the transcript changes
    nothing of what was prepared.
    """
    texts = _random_texts(find(language).random_bert)
    return make_tiny_bert(folder, language, texts, width, zeros=zeros)


def _random_texts(kind: RandomBert) -> list[str]:
    """Return what the vocabulary of a `random` model is made of."""
    if kind.words:
        words = Path(__file__).with_name(kind.words).read_text(encoding="utf-8").split()
        return [*words, *(word.capitalize() for word in words)]
    return [chr(code) for first, end in kind.characters for code in range(first, end)]


def make_tiny_bert(
    folder: Path | str,
    language: str,
    texts: Iterable[str],
    width: int = 32,
    seed: int = 0,
    zeros: bool = False,
) -> Path:
    """Write a model and its vocabulary, which load as published ones do.

    Args:
        folder: folder to write to.
        language: code of the language, which decides architecture and kind of vocabulary.
        texts: texts that the vocabulary is made of.
        width: width of the features, a multiple of 4.
        seed: seed of the weights.
        zeros: the model's features are all 0.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown language, or a width that does not fit.
    """
    if width % _HEADS:
        raise ValueError(f"width must be a multiple of {_HEADS}, not {width}")
    kind = find(language).random_bert
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    write_vocabulary = _write_sentencepiece if kind.words else _write_characters
    size = write_vocabulary(folder, texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _make_model(kind.architecture, size, width)
    if zeros:
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):  # each layer ends with one
                torch.nn.init.zeros_(module.weight)
                torch.nn.init.zeros_(module.bias)
    with quiet_transformers():
        model.save_pretrained(folder)
    return folder


def _make_model(architecture: str, vocabulary: int, width: int) -> Any:
    """Return a model of transformers with random weights."""
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 512,
    }
    if architecture == "bert":
        return transformers.BertModel(transformers.BertConfig(**shape), add_pooling_layer=False)
    relative: dict[str, Any] = {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
    }
    return transformers.DebertaV2Model(transformers.DebertaV2Config(**shape, **relative))


def _write_characters(folder: Path, texts: Iterable[str]) -> int:
    """Write vocab.txt: special tokens, ASCII and the texts' characters; return its size."""
    own = {char for text in texts for char in text if not char.isspace()}
    vocabulary = [*_SPECIAL, *sorted({*_ASCII, "…", *own})]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return len(vocabulary)


def _write_sentencepiece(folder: Path, texts: Iterable[str]) -> int:
    """Write spm.model: pieces learnt from the texts, and ASCII; return its size."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([_PANGRAM, *texts]),
        model_writer=model,
        # merges until words are whole, so that pieces are read as they are with the real model
        model_type="bpe",
        vocab_size=_PIECES,
        hard_vocab_limit=False,
        required_chars="".join(_ASCII),
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
