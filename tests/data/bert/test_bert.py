"""BERT features of tiny models, which are loaded as the published ones are."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.bert.features import BertFeatures
from data.bert.tiny import make_tiny_bert
from data.bert.tokenizer import load_tokenizer
from data.text.front_end import FrontEndError, expand_word2ph, get_front_end

TEXTS = {
    "ZH": ["今天天气很好。", "他说：“好！”", "走"],
    "JP": ["今日はいい天気です。", "「はい」と龘は言った。", "え"],
    "EN": ["It's a fine day.", "The well-known fox: 你好 😀!", "Yes"],
}
LANGUAGES = list(TEXTS)
WIDTH = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return {
        lang: make_tiny_bert(folder / lang, lang, TEXTS[lang], width=WIDTH) for lang in LANGUAGES
    }


@pytest.fixture(scope="module")
def features(models):
    return {language: BertFeatures(str(model)) for language, model in models.items()}


def front_end(language, features):
    return get_front_end(
        language, **({"tokenizer": features[language].tokenizer} if language == "EN" else {})
    )


def read(language, features):
    return [front_end(language, features)(text) for text in TEXTS[language]]


@pytest.mark.medium
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_vector_a_token(language, features):
    batch = read(language, features)
    result = features[language](batch)
    assert features[language].width == WIDTH
    assert len(result) == len(batch)
    for phonemes, array in zip(batch, result, strict=True):
        assert array.dtype == np.float16
        assert array.shape == (len(phonemes.word2ph), WIDTH)
        assert np.isfinite(array).all()
        assert len(array[expand_word2ph(phonemes.word2ph)]) == 2 * len(phonemes.phones) + 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_layer_is_the_third_from_the_end(language, models, features):
    import transformers

    whole = transformers.AutoModel.from_pretrained(models[language]).eval()
    phonemes = read(language, features)[0]
    tokenizer = features[language].tokenizer
    ids = torch.tensor([tokenizer.ids(["[CLS]", *phonemes.bert_tokens, "[SEP]"])])
    with torch.inference_mode():
        hidden = whole(input_ids=ids, output_hidden_states=True).hidden_states[-3][0]
    np.testing.assert_array_equal(
        features[language]([phonemes])[0], hidden.to(torch.float16).numpy()
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_company_in_the_batch_changes_nothing(language, features):
    batch = read(language, features)
    for phonemes, together in zip(batch, features[language](batch), strict=True):
        alone = features[language]([phonemes])[0]
        np.testing.assert_allclose(alone.astype(np.float32), together.astype(np.float32), atol=2e-3)


def test_an_empty_batch_has_no_features(features):
    assert features["ZH"]([]) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_equal_seeds_are_equal_models(language, models, tmp_path):
    again = make_tiny_bert(tmp_path / "again", language, TEXTS[language], width=WIDTH)
    other = make_tiny_bert(tmp_path / "other", language, TEXTS[language], width=WIDTH, seed=1)
    first = BertFeatures(str(models[language])).identity
    assert BertFeatures(str(again)).identity == first
    assert BertFeatures(str(other)).identity != first
    assert BertFeatures(str(again), revision="abc").identity != first


def test_tiny_models_leave_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    make_tiny_bert(tmp_path, "ZH", TEXTS["ZH"])
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.medium
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_english_tokens_and_word2ph_go_together(text, features):
    phonemes_of = front_end("EN", features)
    try:
        phonemes = phonemes_of(text)
    except FrontEndError as error:
        assert error.reason == "empty_text"
        return
    assert len(features["EN"]([phonemes])[0]) == len(phonemes.word2ph)


def test_unknown_tokens_have_features(features):
    tokenizer = features["ZH"].tokenizer
    assert tokenizer.ids(["㐀"]) == tokenizer.ids(["[UNK]"])


def test_tokens_that_do_not_fit_word2ph_are_refused(features):
    phonemes = read("ZH", features)[0]
    wrong = dataclasses.replace(phonemes, bert_tokens=phonemes.bert_tokens[1:])
    with pytest.raises(FrontEndError) as caught:
        features["ZH"]([wrong])
    assert caught.value.reason == "bert_token_mismatch"


def test_a_text_that_is_too_long_is_refused(features):
    with pytest.raises(FrontEndError) as caught:
        features["ZH"]([front_end("ZH", features)("天" * 600)])
    assert caught.value.reason == "text_too_long"
    assert len(features["EN"]([front_end("EN", features)("Yes " * 600)])[0]) == 602


def test_english_needs_the_tokenizer(features):
    with pytest.raises(ValueError, match="tokenizer"):
        features["EN"]([get_front_end("EN")("Yes")])


def test_a_tokenizer_alone_is_that_of_the_model(models, features):
    for language, model in models.items():
        assert load_tokenizer(str(model)).identity == features[language].tokenizer.identity


def test_what_is_missing_is_named(models, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        BertFeatures(str(tmp_path))
    config = json.loads((models["ZH"] / "config.json").read_text())
    for name in ("vocab.txt", "model.safetensors"):
        (tmp_path / name).write_bytes((models["ZH"] / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="gpt2"):
        BertFeatures(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="2 layers"):
        BertFeatures(str(tmp_path))


@pytest.mark.parametrize("name", ["no such name", "/no/such/folder"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="no folder"):
        BertFeatures(name)


def test_width_is_checked(tmp_path):
    with pytest.raises(ValueError, match="multiple of 4"):
        make_tiny_bert(tmp_path, "ZH", [], width=18)
