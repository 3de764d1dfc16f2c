"""The metrics against other implementations, and against formulas worked by hand."""

import numpy as np
import pytest
import torch
import torchaudio.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trainable.evaluation.metrics import (
    CEPSTRA,
    METRICS,
    Analysis,
    analyse,
    compare,
    distances,
    mel_cepstra,
    mel_cepstral_distortion,
    pitch,
    warping_path,
)

RATE, FRAME, HOP = 44100, 2048, 512


def tone(hertz: float | np.ndarray, seconds: float = 1.0) -> torch.Tensor:
    """Five harmonics."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, int(RATE * seconds))) / RATE
    return torch.from_numpy(sum(0.2 * np.sin(k * phase) / k for k in range(1, 6)))


def test_cepstra_are_a_cosine_transform():
    mel = np.random.default_rng(0).normal(size=(128, 7))
    # of mel-frequency cepstral coefficients
    dct = F.create_dct(CEPSTRA + 1, 128, norm=None).double().numpy()
    assert mel_cepstra(mel) == pytest.approx((mel.T @ dct)[:, 1:] / 128, abs=1e-6)


def test_cepstra_rebuild_a_smooth_envelope():
    n = np.arange(128)
    log_mel = (
        0.3 + 0.5 * np.cos(3 * np.pi * (n + 0.5) / 128) - 0.2 * np.cos(7 * np.pi * (n + 0.5) / 128)
    )
    c = mel_cepstra(log_mel[:, None])[0]
    assert (c[2], c[6]) == pytest.approx((0.5, -0.2))
    assert np.abs(np.delete(c, [2, 6])).max() < 1e-12


def test_distortion_by_hand():
    a, b = np.zeros((1, 3)), np.array([[0.1, -0.2, 0.2]])
    # 10 sqrt(2) / ln 10 x |b|
    assert mel_cepstral_distortion(a, b)[0] == pytest.approx(6.141851 * 0.3, rel=1e-6)
    # an envelope whose level differs by 1 dB RMS: a cosine of sqrt(2) dB
    c = np.sqrt(2) * np.log(10) / 20
    assert mel_cepstral_distortion(np.zeros((1, 1)), np.array([[c]]))[0] == pytest.approx(1.0)


def cheapest(costs: np.ndarray) -> float:
    """The recurrence of dynamic time warping, as the textbook has it."""
    total = np.full(costs.shape, np.inf)
    for i, row in enumerate(costs):
        for j, cost in enumerate(row):
            before = [total[i - a, j - b] for a, b in ((1, 0), (0, 1), (1, 1)) if i >= a and j >= b]
            total[i, j] = cost + min(before, default=0)
    return total[-1, -1]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))
def test_warping_path_is_the_cheapest(n, m, seed):
    costs = np.random.default_rng(seed).random((n, m))
    i, j = warping_path(costs)
    assert costs[i, j].sum() == pytest.approx(cheapest(costs))
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, n - 1, m - 1)
    steps = np.diff(np.stack([i, j]))
    assert ((steps >= 0) & (steps <= 1)).all()
    assert (steps.sum(0) > 0).all()


def test_distances_are_euclidean():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    assert distances(a, b) == pytest.approx(np.linalg.norm(a[:, None] - b, axis=2))


@pytest.mark.parametrize("hertz", [80.0, 110.5, 220.0, 333.3, 500.0])
def test_pitch_of_tones(hertz):
    found = pitch(tone(hertz), RATE, FRAME, HOP)[4:-4]
    assert found.numpy() == pytest.approx(hertz, rel=1e-3)


def test_pitch_follows_a_glide():
    glide = np.geomspace(100, 300, RATE)
    found = pitch(tone(glide), RATE, FRAME, HOP).numpy()
    centres = np.arange(len(found)) * HOP + HOP // 2
    assert found[4:-4] == pytest.approx(glide[centres[4:-4]], rel=1e-2)


def test_pitch_is_torchaudios():
    """The cross-correlation finds whole lags, and an octave too low above some 200 Hz."""
    for hertz in (90.0, 120.0, 180.0):
        sound = tone(hertz)
        theirs = F.detect_pitch_frequency(sound.float()[None], RATE, freq_low=60, freq_high=600)[
            0
        ].median()
        assert pitch(sound, RATE, FRAME, HOP)[4:-4].median().item() == pytest.approx(
            float(theirs), rel=1e-2
        )


def test_noise_and_silence_have_no_pitch():
    noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert (pitch(noise, RATE, FRAME, HOP) > 0).double().mean() < 0.02
    assert not pitch(torch.zeros(RATE), RATE, FRAME, HOP).any()
    assert not pitch(torch.zeros(100), RATE, FRAME, HOP).any()
    loud_then_faint = torch.cat([tone(200), 1e-4 * tone(200)])
    assert not pitch(loud_then_faint, RATE, FRAME, HOP)[100:].any()


def speech(f0: list[float], cepstra: list[float]) -> Analysis:
    columns = np.zeros((len(f0), CEPSTRA))
    columns[:, 0] = cepstra
    return Analysis(columns, np.array(f0))


def test_scores_by_hand():
    real, fake = speech([100, 100, 0, 0], [0, 1, 2, 3]), speech([110, 100, 0, 120], [0, 1, 2, 3])
    scores = compare(real, fake)
    assert scores["mcd"] == 0
    assert scores["log_f0_rmse"] == pytest.approx(np.log(1.1) / np.sqrt(2))
    assert scores["vuv_error"] == 0.25
    assert scores["duration_ratio"] == 1
    twice = compare(real, speech([100, 100, 100, 100, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3]))
    assert twice == {"mcd": 0, "log_f0_rmse": 0, "vuv_error": 0, "duration_ratio": 2}
    assert np.isnan(compare(real, speech([0, 0, 0, 0], [0, 1, 2, 3]))["log_f0_rmse"])


def test_identical_sounds_score_zero():
    sound = tone(np.geomspace(100, 300, RATE)) + 0.01 * torch.randn(
        RATE, generator=torch.Generator().manual_seed(0)
    )
    mel = torch.randn(80, RATE // HOP, generator=torch.Generator().manual_seed(1))
    own = analyse(mel, sound, RATE, FRAME, HOP)
    scores = compare(own, own)
    assert tuple(scores) == METRICS
    assert (scores["log_f0_rmse"], scores["vuv_error"], scores["duration_ratio"]) == (0, 0, 1)
    assert scores["mcd"] == 0
