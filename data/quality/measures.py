"""What is measured of a recording: clipping, bandwidth, noise, silence, level, and a fingerprint.

All but the clipping is measured of the waveform that the shards will hold, before its level is
changed. One spectrogram serves bandwidth, noise and fingerprint.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from data.quality.mirrored import source_rate

MEASURES = pa.schema(
    [
        ("clipped", pa.float32()),  # share of the samples
        ("bandwidth", pa.float32()),  # Hz
        ("snr", pa.float32()),  # dB
        ("silence", pa.float32()),  # share of the time
        ("level", pa.float32()),  # of the speech, dB of full scale
        ("fingerprint", pa.uint64()),
    ]
)
DIGITS = 4  # that are kept: shards hold them as text

FULL_SCALE = 0.999
LSB = 1.5 / 32768  # what counts as equal: a step of 16 bits
LEAST_RUN = 3  # samples of a flat top

FRAMES_PER_SECOND = 40  # at least; frames are powers of two long
MANY_FRAMES = 80  # 2 s
LOWEST_HZ = 60  # below are mains and rumble
QUIET_SHARE = 0.1  # of the frames, whose loudest one tells of the noise
BINS_PER_BAND = 16
SNR_LIMITS = (-30.0, 99.0)  # beyond them the estimate tells nothing

BAND_HZ = 250
BELOW_LOUDEST_DB = 60
LOUD_SHARE = 0.02  # of the frames: fricatives are few

LEVEL_FRAMES_PER_SECOND = 50
MARGIN_DB = 15.9
HANGOVER_S = 0.2

FINGERPRINT_HZ = (150, 3800)
FINGERPRINT_CELLS = 9  # bands and parts of the time
FINGERPRINT_FLOOR = 1e-6  # of the loudest cell
FINGERPRINT_RATE = 8000  # Hz, at least


def measure(channels: np.ndarray, wav: np.ndarray, rate: int) -> dict[str, Any]:
    """Return MEASURES of a recording.

    Args:
        channels: what was decoded, float32 [samples, channels], at the file's own sampling rate.
        wav: float32 [samples], not empty, as it is resampled and trimmed.
        rate: sampling rate of `wav`, Hz.
    """
    power = spectrogram(wav, rate)
    step = rate / (2 * (power.shape[1] - 1))
    level, silence = speech_level(wav, rate)
    found = {
        "clipped": clipped_share(channels),
        "bandwidth": round(bandwidth(power, step)),
        "snr": signal_to_noise(power, step),
        "silence": silence,
        "level": level,
    }
    rounded = {name: round(float(value), DIGITS) for name, value in found.items()}
    return rounded | {"fingerprint": fingerprint(power, step, rate)}


def clipped_share(channels: np.ndarray) -> float:
    """Return the share of samples that are clipped, of the channel that has most of them.

    These are samples at full scale, and flat tops: three or more neighbours within a step of 16
    bits of the largest or the smallest sample, whatever that is, as the level may have been changed
    since.

    Args:
        channels: float32 [samples, channels].
    """
    most = max(
        _at_an_end(wav, wav.max(), np.greater_equal) + _at_an_end(wav, wav.min(), np.less_equal)
        for wav in np.ascontiguousarray(channels.T)
    )
    return most / len(channels)


def _at_an_end(wav: np.ndarray, end: np.float32, reaches: np.ufunc) -> int:
    """Return how many samples of a channel are clipped at its upper or lower end."""
    peak = abs(end)
    if peak <= 2 * LSB or not reaches(end, 0):
        return 0  # silence is flat too, and no clipping
    tops = np.flatnonzero(reaches(wav, end - np.copysign(LSB, end)))
    ends = np.flatnonzero(np.diff(tops, append=len(wav) + 1) > 1)
    runs = np.diff(ends, prepend=-1)  # their lengths
    flat = int(runs[runs >= LEAST_RUN].sum())
    full_scale = np.copysign(FULL_SCALE, end)
    at_full_scale = int(reaches(wav, full_scale).sum()) if peak >= FULL_SCALE else 0
    return max(flat, at_full_scale)


def spectrogram(wav: np.ndarray, rate: int) -> np.ndarray:
    """Return the power of Hann-windowed frames, float32 [frames, size / 2 + 1].

    Frames adjoin; of MANY_FRAMES or more, every second one is taken.
    """
    size = 1 << max(4, int(np.log2(rate / FRAMES_PER_SECOND)))
    count = max(1, len(wav) // size)
    frames = np.resize(wav, (count, size)) if len(wav) < size else wav[: count * size]
    chosen = frames.reshape(count, size)[:: 2 if count >= MANY_FRAMES else 1]
    spectrum = np.fft.rfft(chosen * _window(size), axis=1)
    return np.square(spectrum.real) + np.square(spectrum.imag)


@cache
def _window(size: int) -> np.ndarray:
    return np.hanning(size + 1)[:-1].astype(np.float32)


def signal_to_noise(power: np.ndarray, step: float) -> float:
    """Estimate the ratio of speech to steady noise, in dB, from SNR_LIMITS.

    The noise of a bin is what it falls to in its quietest tenth of the time, since speech leaves
    every bin for moments (Stahl, Fischer and Bippus, "Quantile based noise estimation for spectral
    subtraction and Wiener filtering", ICASSP 2000), corrected by what that quantile is of Gaussian
    noise. Of 16 neighbours the median is taken, so that a tone is no noise. Babble and music change
    as speech does and are not found.

    Args:
        power: [frames, bins].
        step: Hz between two bins.
    """
    power = power[:, int(np.ceil(LOWEST_HZ / step)) :]
    frames, bins = power.shape
    # the k-th smallest of n exponential variables of mean one is 1 / n + ... + 1 / (n - k + 1)
    smallest = max(1, round(QUIET_SHARE * frames))
    expected = (1 / np.arange(frames - smallest + 1, frames + 1)).sum()
    quiet = np.partition(power, smallest - 1, axis=0)[smallest - 1] / expected
    width = min(BINS_PER_BAND, bins)
    bands = quiet[: bins // width * width].reshape(-1, width)
    noise = float(np.median(bands, axis=1).mean()) * bins
    total = float(power.mean(axis=0).sum())
    low, high = (10 ** (limit / 10) for limit in SNR_LIMITS)
    ratio = (total - noise) / noise if noise > 0 else high
    return 10 * np.log10(min(max(ratio, low), high))


def bandwidth(power: np.ndarray, step: float) -> float:
    """Return the highest frequency that the recording holds, in Hz.

    It is the upper edge of the highest band of 250 Hz whose loud frames reach a thousandth of the
    amplitude of the loudest band's (60 dB). What was recorded at 8 kHz holds nothing above 4 kHz,
    whatever its file's sampling rate; mirror images of what is below do not count. Hi-Fi TTS
    chooses recordings by such a measure (Bakhturina et al. 2021, arXiv 2104.01497).

    Args:
        power: [frames, bins].
        step: Hz between two bins.
    """
    highest = _highest(power, step)
    source = source_rate(power, step, highest)
    return _highest(power[:, : 1 + int(source / 2 / step)], step) if source else highest


def _highest(power: np.ndarray, step: float) -> float:
    frames, bins = power.shape
    width = max(1, round(BAND_HZ / step))
    bands = np.add.reduceat(power, np.arange(0, bins, width), axis=1)
    loud = frames - 1 - int(LOUD_SHARE * frames)
    level = np.partition(bands, loud, axis=0)[loud]
    highest = np.flatnonzero(level >= level.max() * 10 ** (-BELOW_LOUDEST_DB / 10))[-1]
    return min((highest + 1) * width, bins - 1) * step


def speech_level(wav: np.ndarray, rate: int) -> tuple[float, float]:
    """Return the level of the speech in dB of full scale, and the share of time without speech.

    After ITU-T P.56, method B, by frames of 20 ms: the active level is the mean power of the frames
    that are less than 15.9 dB below it, and 0.2 s behind such a frame count as speech too.

    Args:
        wav: float32 [samples].
        rate: sampling rate, Hz.
    """
    size = max(1, rate // LEVEL_FRAMES_PER_SECOND)
    count = max(1, len(wav) // size)
    power = np.square(wav[: count * size].reshape(count, -1)).mean(axis=1, dtype=np.float64)
    ordered = np.sort(power)[::-1] + 1e-12
    means = np.cumsum(ordered) / np.arange(1, count + 1)
    last = np.flatnonzero(means <= ordered * 10 ** (MARGIN_DB / 10))[-1]
    active = power + 1e-12 >= ordered[last]
    hangover = np.ones(1 + round(HANGOVER_S * LEVEL_FRAMES_PER_SECOND))
    speech = np.convolve(active, hangover)[:count] > 0
    return 10 * np.log10(means[last]), 1 - speech.mean()


def fingerprint(power: np.ndarray, step: float, rate: int) -> int | None:
    """Return 64 bits that copies of a recording share, at whatever level, rate or format.

    The whole recording is cut into 9 parts of time and 9 bands; a bit says whether the difference
    of two neighbouring bands grows from one part to the next (after Haitsma and Kalker, "A highly
    robust audio fingerprinting system", ISMIR 2002, who do so frame by frame).

    Args:
        power: [frames, bins].
        step: Hz between two bins.
        rate: sampling rate, Hz.

    Returns:
        None of what is too short, or of too low a sampling rate.
    """
    if rate < FINGERPRINT_RATE or len(power) < FINGERPRINT_CELLS:
        return None
    edges = np.round(np.geomspace(*FINGERPRINT_HZ, FINGERPRINT_CELLS + 1) / step).astype(int)
    times = np.arange(FINGERPRINT_CELLS) * len(power) // FINGERPRINT_CELLS
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    cells = np.add.reduceat(bands, times, axis=0)
    levels = np.log(cells / (cells.max() or 1) + FINGERPRINT_FLOOR)
    grows = np.diff(np.diff(levels, axis=1), axis=0) > 0
    return int.from_bytes(np.packbits(grows).tobytes(), "little")


def stored(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the MEASURES of a row as text can hold them; empty of a row that was not measured."""
    if row.get("level") is None:
        return {}
    rounded = {name: round(row[name], DIGITS) for name in MEASURES.names[:-1]}
    return rounded | {MEASURES.names[-1]: row[MEASURES.names[-1]]}
