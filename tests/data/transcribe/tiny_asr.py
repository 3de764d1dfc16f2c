"""Tiny recognisers with random weights, loaded by path."""

import json
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LANGUAGES = ("en", "zh", "ja", "fr")
MARKS = ("<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES))
TASKS = ("<|translate|>", "<|transcribe|>", "<|notimestamps|>")


def write_tiny_whisper(folder: Path, hears: str = "en") -> None:
    """Write a multilingual Whisper that hears one language, and some letters in it."""
    tokens = {token: number for number, token in enumerate((*LETTERS, *MARKS, *TASKS))}
    tokenizer = WhisperTokenizer(
        vocab={letter: tokens[letter] for letter in LETTERS},
        merges=[],
        additional_special_tokens=[*MARKS[1:], *TASKS],
    )
    assert tokenizer.convert_tokens_to_ids(list(tokens)) == list(tokens.values())
    WhisperProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    end = tokens["<|endoftext|>"]
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    net = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokens),
            num_mel_bins=8,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_target_positions=16,
            decoder_start_token_id=tokens["<|startoftranscript|>"],
            **{"pad_token_id": end, "bos_token_id": end, "eos_token_id": end},
            **sizes,
            **heads,
        )
    )
    # what follows the first token is the language
    start = net.model.decoder.embed_tokens.weight.data
    start[tokens[f"<|{hears}|>"]] = 9 * start[tokens["<|startoftranscript|>"]]
    net.generation_config = GenerationConfig(
        is_multilingual=True,
        lang_to_id={f"<|{name}|>": tokens[f"<|{name}|>"] for name in LANGUAGES},
        task_to_id={"translate": tokens[TASKS[0]], "transcribe": tokens[TASKS[1]]},
        no_timestamps_token_id=tokens[TASKS[2]],
        suppress_tokens=list(range(len(LETTERS) + 1, len(tokens))),
        max_length=12,
        decoder_start_token_id=tokens["<|startoftranscript|>"],
        **{"pad_token_id": end, "bos_token_id": end, "eos_token_id": end},
    )
    net.save_pretrained(folder)


def write_tiny_ctc(folder: Path) -> None:
    """Write a wav2vec 2.0 that hears nothing but "A"."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", "A"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    net = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=len(letters),
            pad_token_id=0,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=(8, 8),
            conv_stride=(5, 4),
            conv_kernel=(10, 8),
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            num_feat_extract_layers=2,
        )
    )
    net.lm_head.weight.data.zero_()
    net.lm_head.bias.data = torch.tensor([0.0, 0, 0, 0, 0, 9])
    net.save_pretrained(folder)
