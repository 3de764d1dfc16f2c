"""Configuration of what recordings are measured by."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data.settings.declared import Amount, Range, Settings, Share

Rejected = Literal[
    "clipped", "narrow_band", "noisy", "mostly_silence", "quiet", "speech_rate", "near_duplicate"
]


@dataclass(frozen=True)
class QualityConfig(Settings, section="data.quality"):
    """What job.prepare says of recordings (docs/data-quality.md); by default it rejects none.

    Attributes:
        max_clipped_share: largest share of clipped samples (`clipped`).
        min_bandwidth: lowest frequency, in Hz, that a recording has to reach (`narrow_band`); at
            most four fifths of half of `data.sampling_rate` are asked for.
        min_snr: smallest ratio of speech to steady noise, in dB (`noisy`).
        max_silence_share: largest share of a recording without speech (`mostly_silence`).
        min_level: lowest level of the speech, in dB of full scale, before `data.peak` and
            `data.loudness` change it (`quiet`).
        max_rate_ratio: how many times as fast, or as slow, as the speaker's median a line may be
            spoken, in phones per second of speech (`speech_rate`).
        max_text_error: most errors per character or word, as the language counts them, of a line
            against what a recogniser hears; `python -m job.transcribe --check` names lines that
            have more (docs/transcribe.md).
        reject: which of these are rejected: the names in brackets above, and `near_duplicate`, a
            recording that sounds the same as an earlier one.
    """

    max_clipped_share: Share = 0.001
    min_bandwidth: Amount = 6000.0
    min_snr: Annotated[float, Range(-30, 90)] = 20.0
    max_silence_share: Share = 0.5
    min_level: Annotated[float, Range(-100, 0)] = -45.0
    max_rate_ratio: Annotated[float, Range(above=1)] = 2.0
    max_text_error: Amount = 0.5
    reject: tuple[Rejected, ...] = ()
