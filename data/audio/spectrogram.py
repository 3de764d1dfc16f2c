"""Linear and mel spectrograms, as VITS and HiFi-GAN compute them, on any device, in at least fp32.

Magnitudes of an uncentred STFT with a Hann window, over the waveform with (n_fft - hop_size) / 2
samples reflected at both ends, so that a waveform of n * hop_size samples has n frames. Sizes are
samples, frequencies Hz.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from data.precision import fixed_product, widen

POWER_FLOOR = 1e-6  # added under the square root
MEL_FLOOR = 1e-5  # smallest mel amplitude

# the mel scale of Slaney's Auditory Toolbox (1998), which librosa follows by default
HZ_PER_MEL = 200 / 3  # up to the break
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # a mel beyond the break


@lru_cache(maxsize=16)
def _window(n_fft: int, win_size: int, device: torch.device) -> Tensor:
    left = (n_fft - win_size) // 2
    with torch.inference_mode(False):  # a cached tensor may meet autograd later
        window = torch.hann_window(win_size, dtype=torch.float32)
        return F.pad(window, (left, n_fft - win_size - left)).to(device)


def _hz_to_mel(frequency: float) -> float:
    """Slaney's scale: linear up to 1000 Hz, logarithmic above."""
    if frequency < BREAK_HZ:
        return frequency / HZ_PER_MEL
    return BREAK_HZ / HZ_PER_MEL + np.log(frequency / BREAK_HZ) / LOG_STEP


def _mel_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `_hz_to_mel`."""
    beyond = mels - BREAK_HZ / HZ_PER_MEL
    return np.where(beyond < 0, HZ_PER_MEL * mels, BREAK_HZ * np.exp(LOG_STEP * beyond))


@lru_cache(maxsize=16)
def _mel_basis(
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    fmin: float,
    fmax: float | None,
    device: torch.device,
) -> Tensor:
    """See `mel_basis`.

    Computed in double and rounded where librosa rounds, which gives its very bits: the triangle
    to fp32, and once more when it is divided by its area, in double.
    """
    top = sampling_rate / 2 if fmax is None else fmax
    corners = _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(top), num_mels + 2))
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.fft.rfftfreq(n_fft, 1 / sampling_rate)  # [n_fft // 2 + 1] Hz
    rising = -(left - bins) / (centre - left)  # librosa's order, down to the sign of a zero
    falling = (right - bins) / (right - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    basis = (triangles * (2 / (right - left))).astype(np.float32)
    with torch.inference_mode(False):
        return torch.from_numpy(basis).to(device)


def mel_basis(
    *,
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return triangular mel filters of Slaney's Auditory Toolbox, each of unit area.

    To the last bit those of librosa.filters.mel (McFee et al., 2015), which the reference uses.

    Args:
        n_fft: FFT size.
        num_mels: number of filters.
        sampling_rate: Hz.
        fmin: lower end, Hz.
        fmax: upper end, Hz; None for half the sampling rate.
        device: where to put them; kept there for the next call.

    Returns:
        [num_mels, n_fft // 2 + 1] fp32; not to be written to.
    """
    return _mel_basis(n_fft, num_mels, sampling_rate, float(fmin), fmax, torch.device(device))


def _reflect(y: Tensor, pad: int, lengths: Tensor | None) -> Tensor:
    """Reflect `pad` samples at both ends of each waveform: [B, T] -> [B, T + 2 * pad]."""
    if lengths is None and pad == 0:
        return y
    if lengths is None:
        # F.pad's backward pass is not deterministic on CUDA
        before = y[:, 1 : pad + 1].flip(1)
        behind = y[:, -pad - 1 : -1].flip(1)
        return torch.cat([before, y, behind], dim=1)
    positions = torch.arange(-pad, y.size(1) + pad, device=y.device).abs()
    last = lengths.unsqueeze(1) - 1
    source = last - (last - positions).abs()  # negative only far beyond an item's end
    return y.gather(1, source.clamp_min(0))


def spectrogram(
    y: Tensor, n_fft: int, hop_size: int, win_size: int, *, lengths: Tensor | None = None
) -> Tensor:
    """Compute the linear spectrograms of a batch of waveforms.

    With lengths, every waveform is reflected at its own end, by one gather for the whole batch, and
    gets exactly the spectrogram that it gets alone.

    Args:
        y: [B, T] in [-1, 1]; what stands beyond an item's length is not read.
        n_fft: FFT size.
        hop_size: samples from frame to frame.
        win_size: samples per window, at most n_fft.
        lengths: [B] int64 samples, each more than (n_fft - hop_size) / 2; None where all have T.

    Returns:
        [B, n_fft // 2 + 1, frames] fp32 amplitudes, zero beyond an item's own frames.
    """
    pad = (n_fft - hop_size) // 2
    with torch.autocast(y.device.type, enabled=False):
        frames = _reflect(widen(y), pad, lengths).unfold(1, n_fft, hop_size)  # [B, frames, n_fft]
        spectrum = torch.view_as_real(torch.fft.rfft(frames * _window(n_fft, win_size, y.device)))
        spec = torch.sqrt(spectrum.square().sum(-1) + POWER_FLOOR).transpose(1, 2)
    if lengths is None:
        return spec.contiguous()
    own_frames = (lengths + 2 * pad - n_fft) // hop_size + 1
    beyond = torch.arange(spec.size(2), device=y.device) >= own_frames.unsqueeze(1)
    return spec.masked_fill(beyond.unsqueeze(1), 0.0).contiguous()


def spec_to_mel(
    spec: Tensor,
    *,
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> Tensor:
    """Compute the log mel spectrogram of a linear one.

    Args:
        spec: [B, n_fft // 2 + 1, frames] amplitudes.
        n_fft: FFT size.
        num_mels: number of mel bands.
        sampling_rate: Hz.
        fmin: lower end, Hz.
        fmax: upper end, Hz; None for half the sampling rate.

    Returns:
        [B, num_mels, frames] fp32, natural logarithm of the amplitudes.
    """
    basis = _mel_basis(n_fft, num_mels, sampling_rate, float(fmin), fmax, spec.device)
    with torch.autocast(spec.device.type, enabled=False):
        spec = widen(spec)
        return torch.log(fixed_product(basis.to(spec.dtype), spec).clamp_min(MEL_FLOOR))


def mel_spectrogram(
    y: Tensor,
    *,
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    hop_size: int,
    win_size: int,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> Tensor:
    """Compute the log mel spectrogram of waveforms of one length; differentiable.

    Args:
        y: [B, T] in [-1, 1].
        n_fft: FFT size.
        num_mels: number of mel bands.
        sampling_rate: Hz.
        hop_size: samples from frame to frame.
        win_size: samples per window, at most n_fft.
        fmin: lower end, Hz.
        fmax: upper end, Hz; None for half the sampling rate.

    Returns:
        [B, num_mels, frames] fp32, natural logarithm of the amplitudes.
    """
    spec = spectrogram(y, n_fft, hop_size, win_size)
    return spec_to_mel(
        spec, n_fft=n_fft, num_mels=num_mels, sampling_rate=sampling_rate, fmin=fmin, fmax=fmax
    )
