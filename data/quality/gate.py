"""Which lines go beyond the thresholds of `data.quality`, by how much, and what to say of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.quality.alike import AT_A_TIME, copies
from data.settings.quality import QualityConfig

LEAST_LINES = 5  # of a speaker, whose speech rate is known then
ENDS = 2  # phones that are no sound: `_` at both ends
# thresholds are for the band of 44.1 kHz; of a lower sampling rate this share of its band will do
SHARE_OF_BAND = 0.8


@dataclass(frozen=True)
class Finding:
    """What is wrong with a line.

    Attributes:
        kind: one of KINDS, or `near_duplicate`; also the code of the reason if it is rejected.
        detail: what was measured, and the threshold.
    """

    kind: str
    detail: str


Beyond = Callable[[np.ndarray, float], np.ndarray]


def _decibels_below(values: np.ndarray, limit: float) -> np.ndarray:
    return (limit - values) / 10


@dataclass(frozen=True)
class Kind:
    """A way in which a recording is bad.

    Attributes:
        name: as `data.quality.reject` names it.
        key: threshold, of `data.quality`.
        measure: column that is compared with it.
        beyond: (values, threshold) -> how far values are beyond it, 0 at it, 1 at what is plainly
            worse.
        says: what is wrong, given the measured `value` and the threshold, `limit`.
    """

    name: str
    key: str
    measure: str
    beyond: Beyond
    says: str


KINDS = (
    Kind(
        "clipped",
        "max_clipped_share",
        "clipped",
        lambda values, limit: np.log10((values + 1e-5) / (limit + 1e-5)),
        "{value:.2%} of its samples are clipped, data.quality.max_clipped_share allows {limit:.2%}",
    ),
    Kind(
        "narrow_band",
        "min_bandwidth",
        "bandwidth",
        lambda values, limit: np.log2(limit / values),
        "speech in it ends at {value:.0f} Hz, data.quality.min_bandwidth asks for {limit:.0f}",
    ),
    Kind(
        "noisy",
        "min_snr",
        "snr",
        _decibels_below,
        "speech to steady noise is {value:.1f} dB, data.quality.min_snr asks for {limit:g}",
    ),
    Kind(
        "mostly_silence",
        "max_silence_share",
        "silence",
        lambda values, limit: (values - limit) / 0.25,
        "{value:.0%} of it is silence, data.quality.max_silence_share allows {limit:.0%}",
    ),
    Kind(
        "quiet",
        "min_level",
        "level",
        _decibels_below,
        "speech is at {value:.1f} dB of full scale, data.quality.min_level asks for {limit:g}",
    ),
    Kind(
        "speech_rate",
        "max_rate_ratio",
        "pace",
        lambda values, limit: np.abs(np.log2(values)) - np.log2(limit),
        "spoken at {value:.2f} times the speaker's usual rate: do text and recording belong "
        "together? data.quality.max_rate_ratio allows {limit:g}",
    ),
)
COPY = "near_duplicate"


class Gate:
    """Compares lines with the thresholds; a line that was not measured is beyond none.

    Args:
        cfg: the thresholds.
        sampling_rate: Hz.
        measured: rows of data.quality.measures.MEASURES, null where not measured.
        samples: int64 [lines].
        phones: with those at both ends, int [lines].
        voices: numbers of the speaker and the language together, int [lines].

    Attributes:
        values: name of a measure, `rate` (phones per second of speech), or `pace` (the rate,
            compared with the median of the voice) -> float32 [lines], NaN where not known.
        beyond: how far lines are beyond the threshold of each of KINDS, float32 [kinds, lines]; 0
            at the threshold, 1 at what is plainly worse, NaN if not known.
        first: first line that sounds the same, int64 [lines].
        alike: whether others sound the same, bool [lines].
    """

    def __init__(
        self,
        cfg: QualityConfig,
        sampling_rate: int,
        measured: pa.Table,
        samples: np.ndarray,
        phones: np.ndarray,
        voices: np.ndarray,
    ) -> None:
        self.limits = _limits(cfg, sampling_rate)
        *names, last = measured.column_names
        self.values = {name: measured.column(name).to_numpy() for name in names}
        self.values["rate"] = _rates(phones, samples * (1 - self.values["silence"]) / sampling_rate)
        self.values["pace"] = _paces(self.values["rate"], voices)
        self.beyond = np.zeros((len(KINDS), len(samples)), np.float32)
        for row, kind in zip(self.beyond, KINDS, strict=True):
            row[:] = self._beyond(kind)
        prints = measured.column(last)
        known = prints.is_valid().to_numpy()
        self.first = copies(prints.fill_null(0).to_numpy(), samples, known)
        self.alike = np.bincount(self.first, minlength=1)[self.first] > 1
        self._flagged: np.ndarray = np.any(self.beyond > 0, axis=0)

    def _beyond(self, kind: Kind) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return kind.beyond(self.values[kind.measure], self.limits[kind.key])

    @property
    def score(self) -> np.ndarray:
        """By how much lines are beyond all thresholds together, copies by 1, float32 [lines].

        Of those that are beyond none, how near they are to the nearest; NaN if not measured.
        """
        found = np.zeros(len(self.first), np.float32)
        for start in range(0, len(found), AT_A_TIME):
            lines = np.arange(start, min(start + AT_A_TIME, len(found)))
            beyond = self.beyond[:, lines]
            known = np.where(np.isnan(beyond), -np.inf, beyond)
            over = np.maximum(known, 0).sum(axis=0) + (self.first[lines] != lines)
            score = np.where(over > 0, over, known.max(axis=0, initial=-np.inf))
            found[lines] = np.where(np.isfinite(score), score, np.nan)
        return found

    def findings(self, line: int) -> Iterator[Finding]:
        """Yield what is wrong with a line, copies aside."""
        if not self._flagged[line]:
            return
        for kind, beyond in zip(KINDS, self.beyond[:, line], strict=True):
            if beyond > 0:
                value = self.values[kind.measure][line]
                says = kind.says.format(value=value, limit=self.limits[kind.key])
                yield Finding(kind.name, says)


def _limits(cfg: QualityConfig, sampling_rate: int) -> Mapping[str, float]:
    limits = {kind.key: float(getattr(cfg, kind.key)) for kind in KINDS}
    most = SHARE_OF_BAND * sampling_rate / 2
    return limits | {"min_bandwidth": min(limits["min_bandwidth"], most)}


def _rates(phones: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return phones per second of speech; NaN where it is not known how much of it is speech."""
    return np.maximum(phones - ENDS, 1) / np.maximum(seconds, 1e-3)


def _paces(rates: np.ndarray, voices: np.ndarray) -> np.ndarray:
    """Return rates, divided by the median of their voice; NaN of voices with few lines."""
    paces = np.full(len(rates), np.nan)
    counted = np.where(np.isnan(rates), -1, voices)
    order = np.argsort(counted, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(counted[order])) + 1):
        if len(members) >= LEAST_LINES and counted[members[0]] >= 0:
            paces[members] = rates[members] / np.median(rates[members])
    return paces


def rejections(cfg: QualityConfig) -> str:
    """Return in words what is rejected, with the thresholds that decide it."""
    keys = {kind.name: kind.key for kind in KINDS}
    shown = (
        f"{name} ({keys[name]} {getattr(cfg, keys[name]):g})" if name in keys else name
        for name in sorted(set(cfg.reject))
    )
    return ", ".join(shown) or "nothing"
