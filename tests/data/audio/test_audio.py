"""Recordings: formats, lengths, levels, and what is refused."""

import io

import numpy as np
import pytest
import soundfile

from data.audio.recording import (
    TRIMMED_SECONDS,
    check_length,
    decode_audio,
    decode_flac,
    encode_flac,
    measure_loudness,
    read_audio,
    trim_silence,
)
from data.config import DataConfig
from data.rejected import Reason, RejectedError

RATE = 44100
CFG = DataConfig()


def tone(seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


def encoded(
    wav: np.ndarray, rate: int = RATE, fmt: str = "WAV", subtype: str | None = "PCM_16"
) -> bytes:
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
    wav = decode_audio(encoded(tone(), RATE, fmt, subtype), CFG)
    assert wav.dtype == np.float32
    assert len(wav) == RATE
    middle = slice(RATE // 4, RATE // 2)
    assert np.abs(wav[middle] - tone()[middle]).max() < 0.02


def test_mono_is_the_mean_of_the_channels() -> None:
    stereo = np.stack([tone(level=0.5), tone(level=0.1)], axis=1)
    assert np.abs(decode_audio(encoded(stereo), CFG) - tone(level=0.3)).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 48000])
def test_resampling_keeps_length_and_pitch(rate: int) -> None:
    wav = decode_audio(encoded(tone(1.0, rate), rate), CFG)
    assert abs(len(wav) - RATE) <= 1
    assert np.abs(wav[2000:-2000] - tone()[2000 : len(wav) - 2000]).max() < 1e-3


def test_peak_scales_and_none_leaves_the_level() -> None:
    assert np.abs(decode_audio(encoded(tone()), DataConfig(peak=0.9))).max() == pytest.approx(0.9)
    assert np.abs(decode_audio(encoded(tone()), CFG)).max() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("level", [0.01, 0.5])
def test_loudness_of_a_tone(seconds: float, level: float) -> None:
    """BS.1770: a sine of 997 Hz and full scale has -3.01 LUFS; 440 Hz is weighted 0.6 dB less."""
    assert measure_loudness(tone(seconds, level=level), RATE) == pytest.approx(
        20 * np.log10(level) - 3.6, abs=0.2
    )


def test_loudness_is_reached_or_the_peak_is() -> None:
    noise = 0.01 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    wav = decode_audio(encoded(noise), DataConfig(loudness=-23.0))
    assert measure_loudness(wav, RATE) == pytest.approx(-23.0, abs=0.05)
    noise[RATE] = 0.9
    wav = decode_audio(encoded(noise), DataConfig(loudness=-23.0))
    assert np.abs(wav).max() == pytest.approx(1.0)
    assert measure_loudness(wav, RATE) < -30


def test_a_click_in_silence_has_no_loudness() -> None:
    wav = np.zeros(RATE, np.float32)
    wav[RATE // 2] = 0.01
    with pytest.raises(RejectedError, match="-70 LUFS") as caught:
        decode_audio(encoded(wav, subtype="FLOAT"), DataConfig(loudness=-23.0))
    assert caught.value.reason == Reason.SILENT


def padded(before: float, seconds: float, behind: float) -> np.ndarray:
    hiss = (
        np.random.default_rng(0)
        .standard_normal(int((before + seconds + behind) * RATE))
        .astype(np.float32)
    )
    wav, start = 0.0002 * hiss, int(before * RATE)
    wav[start : start + int(seconds * RATE)] += tone(seconds)
    return wav


def test_silence_is_trimmed_but_for_the_margin() -> None:
    wav = padded(0.5, 1.0, 0.7)
    kept = trim_silence(wav, RATE, below_db=40, margin=0.1)
    assert len(kept) == pytest.approx(1.2 * RATE, abs=2 * RATE / 50)
    start = int(0.4 * RATE)
    assert np.array_equal(kept, wav[start : start + len(kept)])
    assert np.array_equal(trim_silence(wav, RATE, below_db=90, margin=0.1), wav)
    assert np.array_equal(trim_silence(wav, RATE, below_db=40, margin=9.0), wav)
    assert len(trim_silence(wav[:10], RATE, below_db=40, margin=0.1)) == 10


def test_limits_hold_after_trimming() -> None:
    cfg = DataConfig(max_seconds=1.5, trim_db=40.0, trim_margin=0.05)
    assert len(decode_audio(encoded(padded(2.0, 1.0, 3.0)), cfg)) < 1.2 * RATE
    for seconds, reason in ((0.2, Reason.TOO_SHORT), (2.0, Reason.TOO_LONG)):
        with pytest.raises(RejectedError) as caught:
            decode_audio(encoded(padded(1.0, seconds, 1.0)), cfg)
        assert caught.value.reason == reason
    with pytest.raises(RejectedError) as caught:
        decode_audio(encoded(np.zeros(8000 * (TRIMMED_SECONDS + 60), np.int16), 8000), cfg)
    assert caught.value.reason == Reason.TOO_LONG


def test_float_samples_beyond_full_scale_are_scaled_not_clipped() -> None:
    wav = decode_audio(encoded(tone(level=3.0), subtype="FLOAT"), CFG)
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
        decode_audio(content, CFG)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\0\0\0\x20ftypM4A \0\0", "is MPEG-4 audio .* convert it to FLAC or WAV"),
        (b"\xff\xf1P\x80", "is AAC, which libsndfile does not read: convert it"),
        (b"\x1aE\xdf\xa3 webm", "is Matroska"),
        (b"not audio at all", "^not decodable: Format not recognised. If players play it, convert"),
    ],
)
def test_files_of_other_kinds_are_told_to_be_converted(content: bytes, told: str) -> None:
    with pytest.raises(RejectedError, match=told):
        decode_audio(content, CFG)


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
    wav = decode_audio(encoded(pcm), CFG)
    assert np.array_equal(wav * 32768, pcm)
    again = decode_flac(encode_flac(wav, RATE))
    assert again.dtype == np.float32
    assert np.array_equal(again, wav)
    assert np.array_equal(
        decode_flac(encode_flac(np.ones(9, np.float32), RATE)),
        np.full(9, 32767 / 32768, np.float32),
    )
