"""Scorers load what the user gives them: tiny random networks, written here and loaded by path."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForXVector,
)

from data.stream.evaluation import EvaluationUtterance
from data.text.languages import units
from trainable.config import ScorerConfig
from trainable.evaluation.scorers import (
    MOVED,
    WEIGHTS_ONLY,
    factory_of,
    load_scorers,
)

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
}
CPU = torch.device("cpu")
SOUND = 0.1 * np.random.default_rng(0).normal(size=44100).astype(np.float32)
OTHER = 0.1 * np.random.default_rng(1).normal(size=44100).astype(np.float32)


def scorer(factory: str, path: object):
    return load_scorers(
        {"x": ScorerConfig(f"trainable.evaluation.scorers:{factory}", str(path))}, CPU
    )["x"]


def utterance(text: str, language: str) -> EvaluationUtterance:
    return EvaluationUtterance(0, 0, None, text, language)


def test_errors_of_recognition(tmp_path):
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", "A"]
    (tmp_path / "vocab.json").write_text(
        json.dumps({letter: i for i, letter in enumerate(letters)})
    )
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path)
    torch.manual_seed(0)
    net = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), pad_token_id=0, **SIZES))
    net.lm_head.weight.data.zero_()
    net.lm_head.bias.data = torch.tensor([0.0, 0, 0, 0, 0, 9])  # hears nothing but A
    net.save_pretrained(tmp_path)
    score = scorer("errors_of_recognition", tmp_path)
    assert score(SOUND, 44100, utterance("A.", "EN"), SOUND) == 0.0
    assert score(SOUND, 44100, utterance("Not a!", "EN"), SOUND) == 0.5
    assert score(SOUND, 44100, utterance("你好a。", "ZH"), SOUND) == pytest.approx(2 / 3)


def test_units():
    assert units("It's, well: fine!", "EN") == ["it's", "well", "fine"]
    assert units("你好,世界。", "ZH") == ["你", "好", "世", "界"]


def test_similarity_of_speakers(tmp_path):
    torch.manual_seed(0)
    config = WavLMConfig(
        tdnn_dim=(8, 8), tdnn_kernel=(3, 1), tdnn_dilation=(1, 1), xvector_output_dim=8, **SIZES
    )
    WavLMForXVector(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    score = scorer("similarity_of_speakers", tmp_path)
    assert score(SOUND, 44100, utterance("", "EN"), SOUND) == pytest.approx(1, abs=1e-5)
    assert -1 <= score(SOUND, 44100, utterance("", "EN"), OTHER) < 0.99999


def test_torchscript(tmp_path):
    class Mean(torch.nn.Module):
        def forward(self, wave: torch.Tensor) -> torch.Tensor:
            return wave.abs().mean(1)

    torch.jit.script(Mean()).save(tmp_path / "mean.pt")
    assert scorer("torchscript", tmp_path / "mean.pt")(
        SOUND, 16000, utterance("", "EN"), OTHER
    ) == pytest.approx(float(np.abs(SOUND).mean()))


@pytest.mark.parametrize(
    "factory",
    [
        "trainable.evaluation.scorers:nothing",
        "no.such.module:f",
        "trainable.evaluation.scorers:torchscript",
    ],
)
def test_one_that_cannot_be_made_names_its_key(factory):
    with pytest.raises(ValueError, match=r"eval\.scorers\.utmos \("):
        load_scorers({"utmos": ScorerConfig(factory, "/does/not/exist")}, CPU)


def test_a_sentence_is_recognised_among_others(tmp_path):
    """PocketSphinx hears the demo's English recordings, and not what else is on them."""
    corpus = Path("job/presets/demo_corpus")
    lines = [line.split("|") for line in (corpus / "esd.list").read_text("utf-8").splitlines()]
    said = {text: corpus / path for path, _, code, text in lines if code == "EN"}
    spelled_out = [text for text in said if not any(map(str.isdigit, text))][:6]
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("\n".join(spelled_out), encoding="utf-8")
    score = scorer("sentence_recognised", sentences)

    for heard in spelled_out[:3]:
        wave, rate = soundfile.read(said[heard], dtype="float32")
        scores = {
            text: score(wave, rate, utterance(text, "EN"), np.zeros(0)) for text in spelled_out
        }
        assert scores == {text: float(text == heard) for text in spelled_out}
    hiss = 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    assert score(hiss, 16000, utterance(spelled_out[0], "EN"), hiss) == 0


def test_a_word_that_the_recogniser_does_not_know_is_named(tmp_path):
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("Good morning.\nGood zzyzx.", encoding="utf-8")
    with pytest.raises(ValueError, match="dictionary has no 'zzyzx'"):
        scorer("sentence_recognised", sentences)


def test_names_that_users_have_written_before_the_modules_moved_are_still_known():
    for before, now in MOVED.items():
        for function in ("errors_of_recognition", "similarity_of_speakers", "torchscript"):
            assert factory_of(f"{before}:{function}") is factory_of(f"{now}:{function}")
    assert MOVED["trainable.scorers"] == "trainable.evaluation.scorers"


def test_those_that_run_no_program_are_listed_under_all_their_names():
    assert sorted(WEIGHTS_ONLY) == sorted(
        f"{module}:{function}"
        for module in ("trainable.scorers", "trainable.evaluation.scorers")
        for function in (
            "errors_of_recognition",
            "sentence_recognised",
            "similarity_of_speakers",
        )
    )
    functions = {name.partition(":")[2] for name in WEIGHTS_ONLY}
    assert "torchscript" not in functions
