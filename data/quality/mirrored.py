"""Whether a recording was upsampled without a filter: above its old band lies the band's mirror.

Repeating samples, and drawing lines between them, leave the spectrum of the source mirrored at half
its sampling rate, so that a source of 8 kHz looks as wide as its file. In no speech does the fine
structure above a frequency mirror that below it, moment by moment.
"""

import numpy as np

SOURCE_RATES = (8000, 11025, 12000, 16000, 22050, 24000)  # Hz
LEAST_ABOVE = 1.15  # times half a source's rate: below is no room for a mirror image
LEAST_FRAMES = 20  # half a second; less may look mirrored by chance
REACH_HZ = 4000  # of the mirror, at most
FLOOR_DB = 70  # below the loudest
SILENCE = 1e-20  # the power of its loudest, which has a logarithm
# Images in the demo corpus, upsampled so, have at least 0.30, and 1.29 times what another axis has.
# Speech has at most 0.10; what holds one pitch mirrors itself, but around every axis: at most 1.1.
LEAST_LIKENESS = 0.2
LEAST_CONTRAST = 1.2
SHIFTS = [*range(-24, -1), *range(2, 25)]  # bins, of the axes that one is compared with


def source_rate(power: np.ndarray, step: float, highest: float) -> int | None:
    """Return the sampling rate that a recording was upsampled from without a filter, in Hz.

    Args:
        power: [frames, bins].
        step: Hz between two bins.
        highest: highest frequency that the recording holds, Hz.

    Returns:
        None if there is no mirror image.
    """
    possible = [rate for rate in SOURCE_RATES if LEAST_ABOVE * rate / 2 < highest]
    if not possible or len(power) < LEAST_FRAMES:
        return None
    loudest = max(float(power.max()), SILENCE)
    floor = np.float32(loudest * 10 ** (-FLOOR_DB / 10))
    slopes = np.diff(np.log(power + floor), axis=1)
    reach = int(REACH_HZ / step)
    return next((rate for rate in possible if _is_mirror(slopes, rate / step, reach)), None)


def _is_mirror(slopes: np.ndarray, axis: float, reach: int) -> bool:
    """Tell whether what is above a frequency mirrors what is below, and no others' near it do.

    Args:
        slopes: from each bin to the next, of the logarithms, float32 [frames, bins - 1].
        axis: twice the frequency, in bins.
        reach: bins on either side.
    """
    likeness = _likeness(slopes, axis, reach)
    if likeness < LEAST_LIKENESS:
        return False
    others = (_likeness(slopes, axis + shift, reach) for shift in SHIFTS)
    return likeness > LEAST_CONTRAST * max(others)


def _likeness(slopes: np.ndarray, axis: float, reach: int) -> float:
    """Return the correlation of what is above with what is below, mirrored; from -1 to 1."""
    whole = int(axis)
    part = np.float32(axis - whole)
    end = whole // 2
    begin = max(0, end - reach, whole + 1 - slopes.shape[1])
    below = slopes[:, begin:end]
    above = slopes[:, whole - end : whole - begin + 1][:, ::-1]
    mirrored = part * above[:, :-1] + (1 - part) * above[:, 1:]
    products = np.einsum("ij,ij->", below, mirrored)
    norms = np.einsum("ij,ij->", below, below) * np.einsum("ij,ij->", mirrored, mirrored)
    return -float(products) / max(float(norms) ** 0.5, 1e-9)
