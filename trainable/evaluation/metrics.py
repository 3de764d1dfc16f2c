"""How far synthetic speech is from a recording: mel-cepstral distortion, pitch, voicing, length.

Two recordings of one sentence differ in timing, so frames are compared along a dynamic time warping
(DTW) path.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CEPSTRA = 24  # coefficients compared; c0, the loudness, is left out
PITCH_RANGE = (60.0, 600.0)  # Hz
YIN_THRESHOLD = 0.15
QUIET = 1e-3  # a frame this far below the loudest one (-60 dB) has no pitch
METRICS = ("mcd", "log_f0_rmse", "vuv_error", "duration_ratio")


@dataclass(frozen=True)
class Analysis:
    """What is compared of an utterance's sound.

    Attributes:
        cepstra: mel-cepstrum of each frame, float64 [frames, CEPSTRA].
        f0: pitch of each frame in Hz, 0 where it is unvoiced, float64 [frames].
    """

    cepstra: np.ndarray
    f0: np.ndarray


def analyse(mel: Tensor, wave: Tensor, sampling_rate: int, frame: int, hop: int) -> Analysis:
    """Return cepstra and pitch of an utterance.

    Args:
        mel: log mel spectrogram [bands, frames], natural logarithm of amplitudes.
        wave: its samples [samples].
        sampling_rate: Hz.
        frame: samples per analysis frame.
        hop: samples from frame to frame.
    """
    f0 = pitch(wave, sampling_rate, frame, hop).cpu().numpy()
    cepstra = mel_cepstra(mel.double().cpu().numpy())
    frames = min(len(f0), len(cepstra))
    return Analysis(cepstra[:frames], f0[:frames])


def compare(real: Analysis, fake: Analysis) -> dict[str, float]:
    """Return the scores of a synthesis against the recording of its text.

    They are 0 for equal ones, but the duration ratio is 1.

    Returns:
        METRICS: `mcd` in dB; `log_f0_rmse` of the natural logarithm, over the pairs of frames that
        are both voiced, NaN if there are none; `vuv_error`, the share of pairs of which one is
        voiced; `duration_ratio`, fake to real.
    """
    i, j = warping_path(distances(real.cepstra, fake.cepstra))
    f0 = real.f0[i]
    other = fake.f0[j]
    voiced = (f0 > 0) & (other > 0)
    log_ratio = np.log(f0[voiced] / other[voiced])

    distortion = mel_cepstral_distortion(real.cepstra[i], fake.cepstra[j])
    log_f0_rmse = float(np.sqrt((log_ratio**2).mean())) if voiced.any() else float("nan")
    return {
        "mcd": float(distortion.mean()),
        "log_f0_rmse": log_f0_rmse,
        "vuv_error": float(((f0 > 0) != (other > 0)).mean()),
        "duration_ratio": len(fake.f0) / len(real.f0),
    }


def mel_cepstra(mel: np.ndarray) -> np.ndarray:
    """Return the mel-cepstra of a log mel spectrogram.

    They are the coefficients c_m of ln M(w) = c_0 + sum_m c_m cos(m w) on the mel axis (Davis and
    Mermelstein 1980).

    Args:
        mel: [bands, frames], natural logarithm of amplitudes.

    Returns:
        c_1 .. c_CEPSTRA, float64 [frames, CEPSTRA].
    """
    bands = len(mel)
    m = np.arange(1, CEPSTRA + 1)
    n = np.arange(bands)
    basis = np.cos(np.pi * np.outer(m, n + 0.5) / bands) * 2 / bands
    return (basis @ mel).T


def mel_cepstral_distortion(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the MCD of pairs of frames, in dB (Kubichek 1993).

    It is 10 / ln 10 * sqrt(2 * sum_m (a_m - b_m)^2).

    Args:
        a: mel-cepstra of one side [frames, coefficients].
        b: mel-cepstra of the other side, of the same shape.
    """
    return 10 / np.log(10) * np.sqrt(2 * ((a - b) ** 2).sum(1))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of all pairs of rows, [len(a), len(b)]."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


def warping_path(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cheapest path from the first pair of frames to the last.

    It goes in steps of one frame on either side or on both: the classic recurrence (Sakoe and Chiba
    1978, symmetric, without slope constraint), one anti-diagonal at a time.

    Args:
        costs: cost of each pair, [n, m], not negative.

    Returns:
        Both indices along the path, int64 [path] each.
    """
    n, m = costs.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    flat = total.reshape(-1)
    cost = np.ascontiguousarray(costs).reshape(-1)
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(diagonal, n - 1) + 1)
        at = (i + 1) * (m + 1) + diagonal - i + 1  # place of the pairs (i, diagonal - i) in `flat`
        before = np.minimum(np.minimum(flat[at - 1], flat[at - m - 1]), flat[at - m - 2])
        flat[at] = cost[i * m + diagonal - i] + before
    return _back_from_the_end(total)


def _back_from_the_end(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the path that led to the last pair.

    Args:
        total: least costs up to each pair, [n + 1, m + 1]; row and column 0 stand before the first.
    """
    i = len(total) - 1
    j = total.shape[1] - 1
    path = []
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        step = int(np.argmin((total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])))
        if step != 2:
            i -= 1
        if step != 1:
            j -= 1
    back = np.array(path[::-1])
    return back[:, 0], back[:, 1]


def pitch(wave: Tensor, sampling_rate: int, frame: int, hop: int) -> Tensor:
    """Return the pitch by YIN (de Cheveigné and Kawahara 2002).

    Args:
        wave: samples [samples].
        sampling_rate: Hz.
        frame: samples per frame; at least two periods of the lowest pitch should fit.
        hop: samples from frame to frame; frames are centred as those of data.audio.spectrogram are.

    Returns:
        Hz, 0 where a frame is unvoiced or quiet, float64 [samples // hop].
    """
    # lags in samples
    low = int(sampling_rate / PITCH_RANGE[1])
    high = int(sampling_rate / PITCH_RANGE[0])
    padding = (frame - hop) // 2
    if len(wave) <= padding:
        return torch.zeros(len(wave) // hop, dtype=torch.float64, device=wave.device)

    padded = torch.nn.functional.pad(wave.double()[None, None], (padding, padding), "reflect")[0, 0]
    frames = padded.unfold(0, frame, hop)  # [F, frame]
    normalized = _normalized_difference(frames, high)

    # step 4: the first dip below the threshold
    left = normalized[:, low - 2 : -2]
    middle = normalized[:, low - 1 : -1]
    right = normalized[:, low:]
    dip = (middle < YIN_THRESHOLD) & (middle <= right) & (middle < left)
    first = dip.to(torch.uint8).argmax(1, keepdim=True)

    # step 5: its lowest point, by a parabola
    a, b, c = (part.gather(1, first) for part in (left, middle, right))
    offset = (a - c) / (2 * (a - 2 * b + c)).clamp_min(1e-12)

    loud = frames.square().mean(1).sqrt()
    voiced = dip.any(1) & (loud > QUIET * loud.max())
    return torch.where(voiced, sampling_rate / (first + low + offset).squeeze(1), 0.0)


def _normalized_difference(frames: Tensor, high: int) -> Tensor:
    """Return YIN's cumulative mean normalized difference (equations 6 to 8).

    Args:
        frames: samples [F, frame].
        high: longest lag in samples.

    Returns:
        [F, high + 1], of the lags from 1.
    """
    frame = frames.shape[1]
    window = frame - high - 1
    size = 2 ** (frame + window).bit_length()
    spectrum = torch.fft.rfft(frames, size)
    head = torch.fft.rfft(frames[:, :window], size)
    correlation = torch.fft.irfft(spectrum * head.conj(), size)[:, : high + 2]

    # energy of the window that begins at each lag
    energy = torch.nn.functional.pad((frames**2).cumsum(1), (1, 0))
    energy = energy[:, window : window + high + 2] - energy[:, : high + 2]
    difference = (energy[:, :1] + energy - 2 * correlation).clamp_min(0)  # equation 7

    lags = torch.arange(1, high + 2, device=frames.device)
    mean = difference[:, 1:].cumsum(1) / lags
    return torch.where(mean > 0, difference[:, 1:] / mean, 1.0)  # equation 8
