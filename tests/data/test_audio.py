"""Recordings: formats, lengths, levels, and what is refused."""

import io

import numpy as np
import pytest
import soundfile

from data.audio import check_length, decode_audio, decode_flac, encode_flac, read_audio
from data.ledger import Reason, RejectedError

RATE = 44100
LIMITS = {"min_seconds": 0.4, "max_seconds": 20.0}


def tone(seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(wav: np.ndarray, rate: int = RATE, fmt: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, wav, rate, format=fmt, subtype=subtype)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("MP3", None),
    ],
)
def test_formats(fmt: str, subtype: str | None) -> None:
    wav = decode_audio(encoded(tone(), RATE, fmt, subtype), RATE, **LIMITS)
    assert wav.dtype == np.float32
    assert len(wav) == RATE
    middle = slice(RATE // 4, RATE // 2)
    assert np.abs(wav[middle] - tone()[middle]).max() < 0.02


def test_mono_is_the_mean_of_the_channels() -> None:
    stereo = np.stack([tone(level=0.5), tone(level=0.1)], axis=1)
    assert np.abs(decode_audio(encoded(stereo), RATE, **LIMITS) - tone(level=0.3)).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 48000])
def test_resampling_keeps_length_and_pitch(rate: int) -> None:
    wav = decode_audio(encoded(tone(1.0, rate), rate), RATE, **LIMITS)
    assert abs(len(wav) - RATE) <= 1
    assert np.abs(wav[2000:-2000] - tone()[2000 : len(wav) - 2000]).max() < 1e-3


def test_peak_scales_and_none_leaves_the_level() -> None:
    assert np.abs(decode_audio(encoded(tone()), RATE, peak=0.9, **LIMITS)).max() == pytest.approx(0.9)
    assert np.abs(decode_audio(encoded(tone()), RATE, **LIMITS)).max() == pytest.approx(0.5, abs=1e-3)


def test_float_samples_beyond_full_scale_are_scaled_not_clipped() -> None:
    wav = decode_audio(encoded(tone(level=3.0), subtype="FLOAT"), RATE, **LIMITS)
    assert np.abs(wav - tone(level=1.0)).max() < 1e-3


def nan_at(position: int, value: float) -> np.ndarray:
    wav = tone()
    wav[position] = value
    return wav


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.UNREADABLE_AUDIO),
        (b"not audio at all", Reason.UNREADABLE_AUDIO),
        (encoded(tone(), fmt="FLAC")[:3000], Reason.UNREADABLE_AUDIO),
        (encoded(nan_at(3, np.nan), subtype="FLOAT"), Reason.NOT_FINITE),
        (encoded(nan_at(3, -np.inf), subtype="FLOAT"), Reason.NOT_FINITE),
        (encoded(np.zeros(RATE, np.float32)), Reason.SILENT),
        (encoded(np.full(RATE, 0.25, np.float32)), Reason.SILENT),
        (encoded(np.zeros(0, np.float32)), Reason.TOO_SHORT),
        (encoded(tone(0.39)), Reason.TOO_SHORT),
        (encoded(tone(20.1)), Reason.TOO_LONG),
        (encoded(tone(60, 8000), 8000), Reason.TOO_LONG),
    ],
)
def test_refusals_carry_their_reason(content: bytes, reason: Reason) -> None:
    with pytest.raises(RejectedError) as caught:
        decode_audio(content, RATE, **LIMITS)
    assert caught.value.reason == reason


def test_length_limits_are_inclusive_and_name_their_key() -> None:
    check_length(4, 10, min_seconds=0.4, max_seconds=0.4)
    with pytest.raises(RejectedError, match=r"data\.min_seconds"):
        check_length(3, 10, min_seconds=0.4, max_seconds=1.0)
    with pytest.raises(RejectedError, match=r"data\.max_seconds"):
        check_length(11, 10, min_seconds=0.4, max_seconds=1.0)


def test_missing_and_unreadable_files(tmp_path) -> None:
    with pytest.raises(RejectedError) as missing:
        read_audio(str(tmp_path / "none.wav"))
    assert missing.value.reason == Reason.MISSING_AUDIO
    with pytest.raises(RejectedError) as folder:
        read_audio(str(tmp_path))
    assert folder.value.reason == Reason.UNREADABLE_AUDIO


def test_flac_is_lossless_for_16_bits() -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, RATE).astype(np.int16)
    pcm[:2] = -32768, 32767
    wav = decode_audio(encoded(pcm), RATE, **LIMITS)
    assert np.array_equal(wav * 32768, pcm)
    again = decode_flac(encode_flac(wav, RATE))
    assert again.dtype == np.float32
    assert np.array_equal(again, wav)
    assert np.array_equal(decode_flac(encode_flac(np.ones(9, np.float32), RATE)), np.full(9, 32767 / 32768, np.float32))
