"""Files that were cut are rejected; honest files of every kind, and odd headers, are not."""

import io
import struct

import numpy as np
import pytest
import soundfile

from data.audio.recording import decode_audio
from data.config import DataConfig
from data.rejected import Reason, RejectedError

RATE = 48000
CFG = DataConfig(sampling_rate=RATE)
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)


def encoded(fmt: str, subtype: str | None, wav: np.ndarray = NOISE) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, wav, RATE, format=fmt, subtype=subtype)
    return sink.getvalue()


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAV", "MS_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("NIST", "PCM_16"),
    ("VOC", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", None),
]


@pytest.mark.parametrize(("fmt", "subtype"), FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_file_is_rejected(fmt: str, subtype: str | None, share: float) -> None:
    whole = encoded(fmt, subtype)
    assert RATE <= len(decode_audio(whole, CFG)) < 1.1 * RATE
    with pytest.raises(RejectedError) as caught:
        decode_audio(whole[: int(share * len(whole))], CFG)
    # libsndfile itself reads nothing of the second kind
    assert caught.value.reason in (Reason.TRUNCATED_AUDIO, Reason.UNREADABLE_AUDIO)
    if subtype != "OPUS" and fmt not in ("CAF", "FLAC"):
        assert caught.value.reason == Reason.TRUNCATED_AUDIO


WAV = encoded("WAV", "PCM_16")


def with_sizes(riff: int, data: int) -> bytes:
    return WAV[:4] + struct.pack("<I", riff) + WAV[8:40] + struct.pack("<I", data) + WAV[44:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_sizes(10 * len(WAV), len(WAV) - 44), "promises 960440 bytes, it holds 96036"),
        (with_sizes(len(WAV) - 8, 2 * len(WAV)), "promises 192088 bytes, it holds 96000"),
        (with_sizes(len(WAV) - 8, 30000), "ends the sound 66000 bytes before the file ends"),
        (with_sizes(len(WAV) - 8, 0), "ends the sound 96000 bytes before the file ends"),
    ],
)
def test_sizes_that_do_not_match(content: bytes, message: str) -> None:
    with pytest.raises(RejectedError, match=message) as caught:
        decode_audio(content, CFG)
    assert caught.value.reason == Reason.TRUNCATED_AUDIO


@pytest.mark.parametrize(
    "content",
    [
        with_sizes(0xFFFFFFFF, 0xFFFFFFFF),
        with_sizes(0x7FFFFFFF + 36, 0x7FFFFFFF),
        WAV[:28] + struct.pack("<I", 999999) + WAV[32:],
        WAV + b"LIST" + struct.pack("<I", 4) + b"INFO",
        WAV + b"ID3\x04" + bytes(1000) + b"title",
        WAV + b"TAG" + b" " * 125,
        WAV + bytes(1000),
        encoded("MP3", None) + b"TAG" + b" " * 125,
    ],
    ids=["pipe", "pipe_of_sox", "bytes_per_second", "list", "id3", "id3v1", "padding", "mp3_tag"],
)
def test_odd_headers_of_whole_files(content: bytes) -> None:
    assert len(decode_audio(content, CFG)) == RATE


@pytest.mark.parametrize(
    ("gains", "kept"),
    [
        ((1, -1), False),
        ((1, -0.9), False),
        ((1, -1, 1, -1), False),
        ((1, -0.5), True),
        ((1, 0), True),
        ((1, 0, 0, 0, 0, 0), True),
        ((1, 1), True),
    ],
)
def test_channels_that_cancel_each_other(gains: tuple[float, ...], kept: bool) -> None:
    content = encoded("WAV", "FLOAT", NOISE[:, None] * np.array(gains))
    if kept:
        assert len(decode_audio(content, CFG)) == RATE
        return
    with pytest.raises(RejectedError, match="channels cancel each other") as caught:
        decode_audio(content, CFG)
    assert caught.value.reason == Reason.CHANNELS_CANCEL


def test_independent_channels_are_mixed() -> None:
    wav = np.random.default_rng(1).uniform(-0.5, 0.5, (RATE, 2))
    assert len(decode_audio(encoded("WAV", "PCM_16", wav), CFG)) == RATE
