"""Recordings: decoded to mono, resampled, trimmed, levelled; and FLAC as the shards hold it."""

import io
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import soundfile
import soxr

from data.audio.embedded import is_embedded, read_embedded
from data.audio.whole import check_decoded, check_header, knows_its_length
from data.config import DataConfig
from data.files import UnreachableError, read_file
from data.rejected import Reason, RejectedError

# of full scale (-60 dB): a recording that never gets louder, without its mean, holds no voice
SILENCE_PEAK = 1e-3
# of what the mean of channels that have nothing in common would have (-20 dB)
CANCELLED_SHARE = 0.1
# with trimming, recordings longer than this are too long whatever silence they hold
TRIMMED_SECONDS = 600
# place and bytes that tell what libsndfile does not read
FOREIGN = (
    (4, b"ftyp", "MPEG-4 audio (m4a, mp4, aac)"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\x30\x26\xb2\x75", "Windows Media (wma, asf)"),
    (0, b"\x1aE\xdf\xa3", "Matroska (webm, mkv)"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio (ape)"),
)
LOUDNESS_BLOCK = 0.4  # seconds that BS.1770 measures at once
INT16_SCALE = 32768

Measured = TypeVar("Measured")


def read_audio(uri: str) -> bytes:
    """Read the bytes of a recording.

    Args:
        uri: file or URI.

    Raises:
        RejectedError: missing_audio or unreadable_audio.
        UnreachableError: the store does not answer, which is not the recording's fault.
    """
    try:
        return read_embedded(uri) if is_embedded(uri) else read_file(uri)
    except (UnreachableError, RejectedError):
        raise
    except FileNotFoundError as error:
        raise RejectedError(Reason.MISSING_AUDIO, f"there is no {uri}") from error
    except (OSError, ValueError) as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, f"{uri} cannot be read: {error}") from error


def decode_audio(content: bytes, cfg: DataConfig) -> np.ndarray:
    """Decode a recording of any format that libsndfile reads; see `decode_and_measure`."""
    return decode_and_measure(content, cfg, lambda *_: None)[0]


def decode_and_measure(
    content: bytes, cfg: DataConfig, look: Callable[[np.ndarray, np.ndarray, int], Measured]
) -> tuple[np.ndarray, Measured]:
    """Decode a recording of any format that libsndfile reads, and look at it on the way.

    A file that holds less than its header promises is rejected. Samples beyond full scale (float
    files, and resampling may overshoot) are scaled down to it, because the shards' 16 bits clip
    them.

    Args:
        content: bytes of the file.
        cfg: `sampling_rate` of the result, `min_seconds`, `max_seconds`, `trim_db`, `trim_margin`,
            `peak`, `loudness`.
        look: called with the channels as they were decoded, float32 [samples, channels], and the
            resampled and trimmed waveform before its level is changed, float32 [samples], with its
            sampling rate (see data.quality.measures.measure).

    Returns:
        float32 [samples] in [-1, 1], and what `look` returned.

    Raises:
        RejectedError: unreadable_audio, truncated_audio, not_finite, channels_cancel, silent,
            too_short or too_long.
    """
    rate = cfg.sampling_rate
    limits = {"min_seconds": cfg.min_seconds, "max_seconds": cfg.max_seconds}
    longest = cfg.max_seconds if cfg.trim_db is None else TRIMMED_SECONDS
    channels, wav = _decode_mono(content, rate, longest)
    check_length(len(wav), rate, min_seconds=cfg.min_seconds, max_seconds=longest)
    mean = wav.mean()
    if max(wav.max() - mean, mean - wav.min()) < SILENCE_PEAK:
        raise RejectedError(Reason.SILENT, f"never louder than {SILENCE_PEAK} of full scale")

    if cfg.trim_db is not None:
        wav = trim_silence(wav, rate, below_db=cfg.trim_db, margin=cfg.trim_margin)
        check_length(len(wav), rate, **limits)
    measured = look(channels, wav, rate)
    if cfg.peak is not None:
        wav = wav * np.float32(cfg.peak / _peak(wav))
    elif cfg.loudness is not None:
        gain_db = cfg.loudness - measure_loudness(wav, rate)
        wav = wav * np.float32(10 ** (gain_db / 20))
    peak = _peak(wav)
    if peak > 1:
        wav = wav / peak
    return np.ascontiguousarray(wav, dtype=np.float32), measured


def _peak(wav: np.ndarray) -> np.float32:
    return max(wav.max(), -wav.min())


def _decode_mono(
    content: bytes, sampling_rate: int, max_seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Decode a file to its channels, and to one channel at a sampling rate.

    Args:
        content: bytes of the file.
        sampling_rate: sampling rate of the one channel, Hz.
        max_seconds: what is longer is decoded up to a second more.

    Returns:
        float32 [samples, channels] at the file's sampling rate, and float32 [samples].

    Raises:
        RejectedError: unreadable_audio, truncated_audio, not_finite or channels_cancel.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            check_header(content, file.extra_info, file.frames)
            rate = file.samplerate
            # what is too long is not read to its end
            frames = min(int((max_seconds + 1) * rate), file.frames)
            channels = file.read(frames, dtype="float32", always_2d=True)  # [samples, channels]
            if knows_its_length(content, file.format):
                check_decoded(len(channels), frames, rate)
    except soundfile.SoundFileError as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, _undecodable(content, error)) from error
    if not np.isfinite(channels).all():
        raise RejectedError(Reason.NOT_FINITE, "the recording holds NaN or infinite samples")
    # numpy takes long for the mean of one
    wav = channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]
    check_channels(channels, wav)
    if rate != sampling_rate:
        wav = soxr.resample(wav, rate, sampling_rate, quality="HQ")
    return channels, wav


def _undecodable(content: bytes, error: soundfile.SoundFileError) -> str:
    """Return why a file cannot be decoded, and what to do about it."""
    form = next((name for place, mark, name in FOREIGN if content.startswith(mark, place)), "")
    if form:
        return (
            f"it is {form}, which libsndfile does not read: convert it to FLAC or WAV "
            "(ffmpeg -i x.m4a x.flac), and name the new file in the transcript"
        )
    # what it calls the file is no name of the user's
    told = getattr(error, "error_string", error)
    return f"not decodable: {told} If players play it, convert it to FLAC or WAV (ffmpeg)"


def check_channels(channels: np.ndarray, mean: np.ndarray) -> None:
    """Reject a recording whose channels cancel each other, as those of reversed polarity do.

    Args:
        channels: float32 [samples, channels].
        mean: their mean, float32 [samples].

    Raises:
        RejectedError: channels_cancel.
    """
    count = channels.shape[1]
    if count == 1 or not len(mean):
        return
    # the deviation of the mean, if the channels were independent or all but one were silent
    independent = float(np.sqrt(channels.var(axis=0).sum())) / count
    if independent > SILENCE_PEAK and mean.std() < CANCELLED_SHARE * independent:
        raise RejectedError(
            Reason.CHANNELS_CANCEL,
            f"its {count} channels cancel each other when they are mixed down: store one of them",
        )


def trim_silence(
    wav: np.ndarray, sampling_rate: int, *, below_db: float, margin: float
) -> np.ndarray:
    """Cut the quiet ends off.

    Args:
        wav: float32 [samples].
        sampling_rate: sampling rate, Hz.
        below_db: windows of 20 ms are quiet if their RMS is this much below the loudest one's.
        margin: seconds kept before the first and behind the last window that is not quiet.

    Returns:
        A part of `wav`.
    """
    size = sampling_rate // 50
    windows = wav[: len(wav) // size * size].reshape(-1, size)
    rms = np.sqrt(np.square(windows).mean(axis=1))
    if not len(rms):
        return wav
    loud = np.flatnonzero(rms >= rms.max() * 10 ** (-below_db / 20))
    kept = int(margin * sampling_rate)
    begin = loud[0] * size - kept
    end = (loud[-1] + 1) * size + kept
    return wav[max(0, begin) : end]


def measure_loudness(wav: np.ndarray, sampling_rate: int) -> float:
    """Measure the integrated loudness in LUFS (ITU-R BS.1770-4).

    Args:
        wav: float32 [samples]; what is shorter than one block of BS.1770 is measured repeated.
        sampling_rate: sampling rate, Hz.

    Raises:
        RejectedError: silent: no block reaches the standard's gate of -70 LUFS.
    """
    import torch
    import torchaudio  # here, because its import takes seconds and few corpora ask for it

    block = int(LOUDNESS_BLOCK * sampling_rate) + 1
    whole = torch.from_numpy(np.resize(wav, max(len(wav), block)))[None]
    loudness = float(torchaudio.functional.loudness(whole, sampling_rate))
    if not np.isfinite(loudness):
        raise RejectedError(Reason.SILENT, "its loudness is below -70 LUFS")
    return loudness


def check_length(
    samples: int, sampling_rate: int, *, min_seconds: float, max_seconds: float
) -> None:
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
    """Encode as FLAC of 16 bits; lossless where the samples came from 16 bits.

    Args:
        wav: float [samples] in [-1, 1].
        sampling_rate: sampling rate, Hz.
    """
    scaled = wav * INT16_SCALE
    np.rint(scaled, out=scaled)
    pcm = scaled.clip(-INT16_SCALE, INT16_SCALE - 1, out=scaled).astype(np.int16)
    sink = io.BytesIO()
    soundfile.write(sink, pcm, sampling_rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def decode_flac(content: bytes) -> np.ndarray:
    """Decode what `encode_flac` made: float32 [samples] in [-1, 1]."""
    pcm, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    return pcm.astype(np.float32) / INT16_SCALE
