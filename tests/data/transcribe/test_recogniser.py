"""Recognisers of transformers: tiny ones, written here and loaded by path."""

import numpy as np
import pytest

from data.bert.tiny import make_random_bert
from data.settings.asr import AsrConfig
from data.transcribe.recogniser import Sound, kind_of, load_recogniser
from tests.data.transcribe.tiny_asr import LETTERS, write_tiny_ctc, write_tiny_whisper

NOISE = 0.1 * np.random.default_rng(0).normal(size=32000).astype(np.float32)


def sound(language: str | None = None, samples: int = 32000) -> Sound:
    return Sound("x.wav", b"", NOISE[:samples], language)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("whisper")
    write_tiny_whisper(folder, hears="ja")
    return str(folder)


def test_whisper_tells_text_language_and_confidence(whisper):
    recognise = load_recogniser(AsrConfig(model=whisper), "cpu")
    free, told, short = recognise([sound(), sound("EN"), sound(samples=8000)])
    assert (free.language, told.language, short.language) == ("ja", "en", "ja")
    for heard in (free, told, short):
        assert heard.text and set(heard.text) <= set(LETTERS)
        assert heard.confidence is not None and 0 < heard.confidence < 1
    (alone,) = recognise([sound()])
    assert (alone.text, alone.language) == (free.text, free.language)


def test_whisper_takes_the_language_of_the_configuration(whisper):
    recognise = load_recogniser(AsrConfig(model=whisper, language="zh-cn"), "cpu")
    assert [each.language for each in recognise([sound(), sound("EN")])] == ["zh", "en"]


def test_ctc(tmp_path):
    write_tiny_ctc(tmp_path)
    recognise = load_recogniser(AsrConfig(model=str(tmp_path), language="EN"), "cpu")
    (heard,) = recognise([sound()])
    assert (heard.text, heard.language) == ("A", "EN")
    assert heard.confidence == pytest.approx(np.exp(9) / (np.exp(9) + 5), abs=1e-4)


def test_models_that_tell_no_language_need_one(tmp_path):
    write_tiny_ctc(tmp_path)
    with pytest.raises(ValueError, match=r"wav2vec2 does not tell languages: set data\.asr\.lang"):
        kind_of(AsrConfig(model=str(tmp_path)))


def test_what_recognises_no_speech_is_refused(tmp_path):
    folder = make_random_bert(tmp_path / "bert", "ZH", 8)
    with pytest.raises(ValueError, match=r"data\.asr\.model is .*bert: a bert, which is not run"):
        kind_of(AsrConfig(model=str(folder), language="ZH"))


def test_confidence_of_a_sure_recogniser_is_high(whisper):
    """The confidence is that of the tokens that were said, by hand for one sound."""
    import torch

    recognise = load_recogniser(AsrConfig(model=whisper), "cpu")
    (heard,) = recognise([sound("EN")])
    features = recognise.processor.feature_extractor(
        [NOISE], sampling_rate=16000, return_tensors="pt"
    ).input_features
    tokenizer = recognise.processor.tokenizer
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    said = tokenizer.convert_tokens_to_ids([*prompt, *heard.text])
    with torch.no_grad():
        logits = recognise.net(features, decoder_input_ids=torch.tensor([said])).logits[0]
    logits[:, len(LETTERS) + 1 :] = -np.inf  # suppressed
    begin = len(prompt) - 1
    logs = logits[begin:-1].log_softmax(-1)[range(len(heard.text)), said[begin + 1 :]]
    assert heard.confidence == pytest.approx(float(logs.mean().exp()), rel=0.03)
