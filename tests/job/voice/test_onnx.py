"""ONNX graphs of the inference compute what torch computes, for any length."""

import shutil
from unittest.mock import patch

import numpy as np
import pytest

from data.config import DataConfig
from job.export import main
from job.voice import export
from job.voice.onnx_graphs import (
    DECODER,
    PRIOR,
    TOLERANCE,
    largest_difference,
    text_names,
    write_onnx,
)
from tests.job.voices import tiny_checkpoint
from tests.reference.rule import fill
from tests.trainable.networks import tiny
from trainable.config import TrainConfig
from trainable.model_config import ModelConfig
from trainable.networks.generator import synthesizer
from trainable.networks.generator.build import build_generator
from trainable.networks.generator.synthesizer import SynthesizerTrn

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.medium  # tracing takes its time


HOP = 4
SMALL = {  # every kind of layer, once: tracing takes its time
    "n_flow_layer": 1,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "upsample_rates": [HOP],
    "upsample_kernel_sizes": [8],
}


def small(scale: float = 0.3) -> SynthesizerTrn:
    with patch.dict(synthesizer.STOCHASTIC, n_flows=2):
        net = tiny.synthesizer(**SMALL).eval()
    tiny.randomise(net, scale)
    return net


@pytest.fixture(scope="module")
def net():
    return small()


@pytest.fixture(scope="module")
def stem(net, tmp_path_factory):
    stem = str(tmp_path_factory.mktemp("onnx") / "G_7")
    write_onnx(net, stem)
    return stem


def test_the_graphs_agree_with_torch(net, stem):
    assert largest_difference(net, stem) < TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_full_model_agrees_too(tmp_path):
    model, data = ModelConfig(), DataConfig()
    net = build_generator(model, TrainConfig().segment_size, data).eval()
    fill(net, salt="")  # weights of ordinary size
    write_onnx(net, str(tmp_path / "G"))
    difference = largest_difference(net, str(tmp_path / "G"))
    print(f"\nlargest difference {difference:.2g}")
    assert difference < TOLERANCE


def test_other_weights_do_not(stem):
    assert largest_difference(small(0.31), stem) > 100 * TOLERANCE


def test_the_graphs_speak_as_documented(net, stem):
    """Names and shapes of docs/synthesis.md; the noise decides, and nothing else."""
    text, decoder = (
        onnxruntime.InferenceSession(f"{stem}.{name}.onnx") for name in ("text", "decoder")
    )
    assert [i.name for i in text.get_inputs()] == text_names(net)
    assert [o.name for o in text.get_outputs()] == list(PRIOR)
    assert [i.name for i in decoder.get_inputs()] == list(DECODER)
    tokens, rng = 21, np.random.default_rng(0)
    said = tiny.text(batch=1, tokens=tokens)
    given = {"x": said.x, "tone": said.tone, "language": said.language, "sid": said.sid}
    given |= dict(zip(("bert", "ja_bert", "en_bert"), said.bert, strict=True))
    given = {name: value.numpy() for name, value in given.items()}
    scales = {"noise_scale_w": 0.8, "length_scale": 1.0, "sdp_ratio": 0.2}
    given |= {name: np.array(value, np.float32) for name, value in scales.items()}
    given["noise"] = rng.standard_normal((1, 2, tokens), dtype=np.float32)
    prior = dict(zip(PRIOR, text.run(None, given), strict=True))
    frames = int(prior["w"].sum())
    noise = rng.standard_normal((1, prior["m_p"].shape[1], frames), dtype=np.float32)
    scale = np.array(0.6, np.float32)
    first, again = (
        decoder.run(None, prior | {"noise": noise, "noise_scale": scale})[0] for _ in range(2)
    )
    assert first.shape == (1, 1, frames * HOP)
    assert np.array_equal(first, again)
    assert not np.allclose(
        first, decoder.run(None, prior | {"noise": -noise, "noise_scale": scale})[0]
    )


def test_a_voice_without_a_speaker_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.n_speakers is 0"):
        write_onnx(tiny.synthesizer("reference_encoder").eval(), str(tmp_path / "G"))


def test_the_command_compares_what_it_writes(net, stem, monkeypatch, tmp_path, capsys):
    """With another network's graphs in their place: a whole checkpoint takes long to trace."""
    checkpoint = tiny_checkpoint(tmp_path)

    def write(_: object, target: str) -> None:
        for name in ("text", "decoder"):
            shutil.copy(f"{stem}.{name}.onnx", f"{target}.{name}.onnx")

    monkeypatch.setattr(export, "write_onnx", write)
    monkeypatch.setattr(
        export, "largest_difference", lambda _, target: largest_difference(net, target)
    )
    argv = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--format", "onnx"]
    assert main(argv) == 0
    assert "onnxruntime and torch agree" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"G_7.text.onnx", "G_7.decoder.onnx", "config.json"}
    monkeypatch.setattr(export, "largest_difference", lambda *_: 1e-3)
    with pytest.raises(ValueError, match=r"0\.001 apart"):
        main([*argv[:3], str(tmp_path / "other"), *argv[4:]])
    assert not (tmp_path / "other").exists()
