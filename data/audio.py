"""Recordings: decoded, mixed to mono, resampled; and FLAC bytes as the shards hold them."""

import io

import fsspec
import numpy as np
import soundfile
import soxr

from data.ledger import Reason, RejectedError

SILENCE_PEAK = 1e-3  # of full scale (-60 dB): a recording that never gets louder, its mean taken off, holds no voice
INT16_SCALE = 32768


def read_audio(uri: str) -> bytes:
    """The bytes of a recording.

    Args:
        uri: file or URI.

    Raises:
        RejectedError: missing_audio or unreadable_audio.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    try:
        return fs.cat_file(path)
    except FileNotFoundError as error:
        raise RejectedError(Reason.MISSING_AUDIO, f"there is no {uri}") from error
    except OSError as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, f"{uri} cannot be read: {error}") from error


def decode_audio(
    content: bytes, sampling_rate: int, *, min_seconds: float, max_seconds: float, peak: float | None = None
) -> np.ndarray:
    """Decode a recording of any format that libsndfile reads.

    The length is that of the decoded samples, whatever the file's header says. Samples beyond full scale (float files,
    and resampling may overshoot) are scaled down to it, since the shards' 16 bits would clip them.

    Args:
        content: the file.
        sampling_rate: Hz of the result.
        min_seconds: shorter recordings are rejected.
        max_seconds: longer recordings are rejected, and are not decoded to their end.
        peak: greatest magnitude of the result; none leaves the level alone.

    Returns:
        float32 [samples] in [-1, 1].

    Raises:
        RejectedError: unreadable_audio, not_finite, silent, too_short or too_long.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate = file.samplerate
            channels = file.read(int((max_seconds + 1) * rate), dtype="float32", always_2d=True)  # [samples, channels]
    except soundfile.SoundFileError as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, f"not decodable: {error}") from error
    if not np.isfinite(channels).all():
        raise RejectedError(Reason.NOT_FINITE, "the recording holds NaN or infinite samples")
    wav = channels.mean(axis=1)  # [samples at rate]
    if rate != sampling_rate:
        wav = soxr.resample(wav, rate, sampling_rate, quality="HQ")
    check_length(len(wav), sampling_rate, min_seconds=min_seconds, max_seconds=max_seconds)
    loudest = float(np.abs(wav).max())
    if float(np.abs(wav - wav.mean()).max()) < SILENCE_PEAK:
        raise RejectedError(Reason.SILENT, f"never louder than {SILENCE_PEAK} of full scale")
    if peak is not None:
        wav = wav * np.float32(peak / loudest)
    elif loudest > 1:
        wav = wav / np.float32(loudest)
    return np.ascontiguousarray(wav, dtype=np.float32)


def check_length(samples: int, sampling_rate: int, *, min_seconds: float, max_seconds: float) -> None:
    """Reject a recording that is too short or too long.

    Raises:
        RejectedError: too_short or too_long.
    """
    seconds = samples / sampling_rate
    if not samples or seconds < min_seconds:
        raise RejectedError(Reason.TOO_SHORT, f"{seconds:.2f} s, data.min_seconds is {min_seconds}")
    if seconds > max_seconds:
        raise RejectedError(Reason.TOO_LONG, f"longer than data.max_seconds, {max_seconds}")


def encode_flac(wav: np.ndarray, sampling_rate: int) -> bytes:
    """FLAC of 16 bits; lossless where the samples came from 16 bits.

    Args:
        wav: float [samples] in [-1, 1].
        sampling_rate: Hz.
    """
    pcm = np.clip(np.rint(wav * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
    sink = io.BytesIO()
    soundfile.write(sink, pcm, sampling_rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def decode_flac(content: bytes) -> np.ndarray:
    """The samples of `encode_flac`: float32 [samples] in [-1, 1]."""
    pcm, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    return pcm.astype(np.float32) / INT16_SCALE
