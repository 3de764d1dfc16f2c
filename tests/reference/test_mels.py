"""Spectrograms and mels are the reference trainer's."""

from typing import Any

import pytest
import torch

from data.spectrogram import mel_basis, mel_spectrogram, spec_to_mel, spectrogram
from tests.reference.goldens import REFERENCE, Reference


def mel_outputs(ctor: dict[str, Any], y: torch.Tensor) -> dict[str, torch.Tensor]:
    mel = {key: ctor[key] for key in ("n_fft", "num_mels", "sampling_rate", "fmin", "fmax")}
    spec = spectrogram(y, ctor["n_fft"], ctor["hop_size"], ctor["win_size"])
    return {
        "spec": spec,
        "mel_from_spec": spec_to_mel(spec, **mel),
        "mel": mel_spectrogram(y, hop_size=ctor["hop_size"], win_size=ctor["win_size"], **mel),
        "mel_basis": mel_basis(**mel),
    }


def check_mels(reference: Reference, name: str) -> None:
    reference.check(name, mel_outputs(reference.entry(name)["ctor"], reference.inputs(name)["y"]))


@pytest.mark.parametrize("name", REFERENCE.names("mel_processing"))
def test_mels(name):
    check_mels(REFERENCE, name)


def batches(name: str) -> list[str]:
    return sorted({key.partition(".")[0] for key in REFERENCE.entry(name)["inputs"]})


@pytest.mark.parametrize("batch", batches("train_batches"))
def test_spectrograms_of_padded_batches(batch):
    """The training batches' spectrograms, whose sums and norms are stored, are computed utterance by utterance."""
    data = REFERENCE.json("train_steps")["data"]
    tensors = REFERENCE.tensors("train_batches")
    y, lengths = tensors[f"{batch}.y"].squeeze(1), tensors[f"{batch}.y_lengths"]
    stft = (data["filter_length"], data["hop_length"], data["win_length"])
    spec = spectrogram(y, *stft, lengths=lengths)
    total, norm = tensors[f"{batch}.spec_checksum"].tolist()
    assert float(spec.double().sum()) == pytest.approx(total, rel=1e-6)
    assert float(spec.double().norm()) == pytest.approx(norm, rel=1e-6)
    frames = tensors[f"{batch}.spec_lengths"]
    for one, own, samples, count in zip(spec, y, lengths, frames, strict=True):
        alone = spectrogram(own[None, :samples], *stft)[0]
        assert alone.size(1) == count
        assert torch.equal(one[:, :count], alone)
        assert not one[:, count:].any()
