"""Texts of one language are read as their shards are; those of several are one text."""

import numpy as np
import pytest
import torch

from data.bert.features import BertFeatures
from data.bert.reading import TextReader
from data.bert.tiny import make_tiny_bert
from data.config import BertConfig, DataConfig
from data.stream.collate import TtsBatch, features_of_phones, pad
from data.text.front_end import expand_word2ph, get_front_end, to_sequence
from data.text.marked import parse

TEXTS = {"ZH": "早上好。", "JP": "はい。", "EN": "Hello, you."}


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    models = {
        own: make_tiny_bert(folder / own, own, [text], width=16) for own, text in TEXTS.items()
    }
    return DataConfig(bert=BertConfig(**{own.lower(): str(model) for own, model in models.items()}))


@pytest.fixture(scope="module")
def read(cfg):
    return TextReader(cfg)


@pytest.mark.parametrize("language", TEXTS)
def test_one_language(cfg, read, language):
    features = BertFeatures(cfg.bert.model(language)[0])
    options = {"tokenizer": features.tokenizer} if language == "EN" else {}
    phonemes = get_front_end(language, **options)(TEXTS[language])
    reading = read(parse(TEXTS[language], language))
    x, tone, languages = to_sequence(phonemes.phones, phonemes.tones, language)
    assert np.array_equal([reading.x, reading.tone, reading.language], [x, tone, languages])
    assert np.array_equal(reading.token_index, expand_word2ph(phonemes.word2ph))
    assert np.array_equal(reading.bert, features([phonemes])[0])
    assert set(reading.spoken) == {list(TEXTS).index(language)}


def test_full_precision_is_what_the_shards_round(cfg, read):
    parts = parse("".join(f"[{language}]{text}" for language, text in TEXTS.items()))
    half, full = read(parts).bert, TextReader(cfg, full_precision=True)(parts).bert
    assert (half.dtype, full.dtype) == (np.float16, np.float32)
    assert np.array_equal(full.astype(np.float16), half)
    assert not np.array_equal(full, half.astype(np.float32))


@pytest.mark.parametrize("add_blank", [True, False])
def test_several_languages_are_read_as_one_text(cfg, add_blank):
    read = TextReader(DataConfig(bert=cfg.bert, add_blank=add_blank))
    alone = [read(parse(text, language)) for language, text in TEXTS.items()]
    mixed = read(parse("".join(f"[{language}]{text}" for language, text in TEXTS.items())))
    begin, end = (3, 2) if add_blank else (1, 1)  # [0, _, 0] and [_, 0], or the silence alone

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        first, second, third = arrays
        return np.concatenate([first[:-end], second[begin:-end], third[begin:]])

    for name in ("x", "tone", "language", "spoken"):
        assert np.array_equal(
            getattr(mixed, name), joined([getattr(reading, name) for reading in alone])
        ), name
    features = joined([reading.bert[reading.token_index] for reading in alone])
    assert np.array_equal(mixed.bert[mixed.token_index], features)


def test_each_phone_has_the_features_of_its_own_language(read):
    reading = read(parse("[EN]Hello, [ZH]早。"))
    bert, index, spoken = (
        torch.from_numpy(a)[None] for a in (reading.bert, reading.token_index, reading.spoken)
    )
    zh, jp, en = features_of_phones(bert, index, spoken, BertConfig())
    own = torch.from_numpy(reading.bert[reading.token_index].astype(np.float32)).T
    english = spoken[0] == 2
    assert torch.equal(en[0], own * english)
    assert torch.equal(zh[0], own * ~english)
    assert not jp.any()
    noise = BertConfig(inactive="noise")
    noisy = features_of_phones(bert, index, spoken, noise, torch.Generator().manual_seed(0))
    assert torch.equal(noisy[2][0, :, english], own[:, english])
    assert 0.5 < noisy[1].std() < 1.5


def test_a_training_batch_has_the_same_features(read):
    readings = [read(parse(text, language)) for language, text in TEXTS.items()]
    padded = {
        name: torch.from_numpy(pad([getattr(reading, name) for reading in readings], np.int64))
        for name in ("x", "tone", "language", "token_index")
    }
    lengths, nothing = torch.tensor([len(reading.x) for reading in readings]), torch.zeros(0)
    batch = TtsBatch(
        rows=nothing,
        x_lengths=lengths,
        bert=torch.from_numpy(pad([r.bert for r in readings], np.float16)),
        y=nothing,
        y_lengths=nothing,
        spec_lengths=lengths,
        speakers=nothing,
        **padded,
    )
    for i, (reading, length) in enumerate(zip(readings, lengths, strict=True)):
        arrays = (
            torch.from_numpy(a)[None] for a in (reading.bert, reading.token_index, reading.spoken)
        )
        for together, alone in zip(
            batch.bert_features(), features_of_phones(*arrays, BertConfig()), strict=True
        ):
            assert torch.equal(together[i, :, :length], alone[0])
            assert not together[i, :, length:].any()
