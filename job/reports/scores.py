"""What the scores of a validation are, for those who look at them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """What a score is.

    Attributes:
        name: as people call it.
        unit: its unit.
        meaning: what it measures.
        ideal: the best value.
    """

    name: str
    unit: str
    meaning: str
    ideal: float = 0.0


KNOWN = {
    "mcd": Score("MCD", "dB", "mel-cepstral distortion of a free synthesis"),
    "mel": Score("mel L1", "", "with teacher forcing"),
    "kl": Score("KL", "nats", "divergence, with teacher forcing"),
    "dur": Score("duration loss", "", "with teacher forcing"),
    "log_f0_rmse": Score("pitch error", "ln Hz", "0.06 is a semitone"),
    "vuv_error": Score("voicing error", "of 1", "share of frames voiced in only one of both"),
    "duration_ratio": Score("length", "×", "the recording's is 1", ideal=1.0),
}
"""Tag without `eval/` -> score."""
