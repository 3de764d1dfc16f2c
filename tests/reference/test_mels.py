"""Spectrograms and mels are the reference trainer's."""

import zlib
from typing import Any

import pytest
import torch

from data.audio.spectrogram import mel_basis, mel_spectrogram, spec_to_mel, spectrogram
from tests.reference import double
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


@pytest.mark.parametrize("name", REFERENCE.names("mel_processing"))
def test_bits_of_the_filter_bank(name):
    """Equal bits, but for the sign of a zero."""
    bank = mel_outputs(REFERENCE.entry(name)["ctor"], REFERENCE.inputs(name)["y"])["mel_basis"]
    assert bank.dtype == torch.float32
    assert torch.equal(bank, REFERENCE.tensors(name)["out.mel_basis"])


@pytest.mark.skipif(not REFERENCE.holds(double.NAME), reason=f"the set has no {double.NAME}.json")
def test_bits_of_the_filter_bank_of_the_training_steps():
    file = REFERENCE.json(double.NAME)
    rows, columns, values = file["mel_basis"]["nonzero"]
    expected = torch.zeros(file["mel_basis"]["shape"], dtype=torch.float64)
    expected[rows, columns] = torch.tensor(values, dtype=torch.float64)
    data = file["data"]
    bank = mel_basis(
        n_fft=data["filter_length"],
        num_mels=data["n_mel_channels"],
        sampling_rate=data["sampling_rate"],
        fmin=data["mel_fmin"],
        fmax=data["mel_fmax"],
    )
    assert torch.equal(bank.double(), expected)


@pytest.mark.parametrize(
    ("n_fft", "num_mels", "rate", "fmin", "fmax", "crc"),
    [
        (1200, 60, 24000, 30.0, 11000.0, 0x86A14287),
        (1024, 80, 22050, 0.0, 8000.0, 0xD6A66A86),
        (1024, 80, 22050, 0.0, None, 0xF5A096E0),
        (2048, 100, 48000, 20.0, 20000.0, 0xD8B461D2),
        (512, 40, 16000, 50.0, 7600.0, 0xCAC89B6A),
        (2048, 128, 32000, 0.0, 16000.0, 0xCD4C6724),
        (1920, 96, 24000, 0.0, 12000.0, 0xAF6C9D4E),
        (800, 64, 16000, 1000.0, None, 0xCD74677E),
        (1280, 80, 16000, 125.0, 7500.0, 0x7BCF0E99),
        (4096, 160, 44100, 40.0, 15999.0, 0x0C1B7E04),
        (256, 30, 8000, 0.0, 900.0, 0xA962F04A),
    ],
)
def test_bits_of_librosas_filter_banks(n_fft, num_mels, rate, fmin, fmax, crc):
    """CRC-32 of the magnitudes of librosa.filters.mel, version 0.11.0, on Linux."""
    bank = mel_basis(n_fft=n_fft, num_mels=num_mels, sampling_rate=rate, fmin=fmin, fmax=fmax)
    assert zlib.crc32(bank.abs().numpy().tobytes()) == crc


def batches(name: str) -> list[str]:
    return sorted({key.partition(".")[0] for key in REFERENCE.entry(name)["inputs"]})


@pytest.mark.parametrize("batch", batches("train_batches"))
def test_spectrograms_of_padded_batches(batch):
    """The training batches' spectrograms are computed per utterance; sums and norms are stored."""
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
