"""Where speech is: silero-vad, whose weights lie in its package.

It runs by torch.jit on one CPU thread, more than a hundred times as fast as speech.
"""

import numpy as np

from data.settings.asr import AsrConfig
from data.transcribe.slicing import Span

RATE = 16000  # Hz, of what it hears
WINDOW = 512  # samples that it judges at once
SECONDS = WINDOW / RATE
MIN_SILENCE_MS = 100
MIN_SPEECH_MS = 100


class SpeechDetector:
    """Finds speech in sound that comes in blocks.

    Args:
        threshold: smallest probability that counts as speech.
    """

    def __init__(self, threshold: float) -> None:
        from silero_vad import load_silero_vad

        self.threshold = threshold
        self.net = load_silero_vad()
        self.begin()

    def begin(self) -> None:
        """Begin a recording."""
        self.net.reset_states()
        self.probabilities: list[float] = []
        self.rest = np.zeros(0, np.float32)
        self.samples = 0

    def hear(self, block: np.ndarray) -> None:
        """Judge the next block of a recording, float32 [samples] at RATE."""
        self.samples += len(block)
        sound = np.concatenate([self.rest, block])
        count = len(sound) // WINDOW
        self._judge(sound[: count * WINDOW])
        self.rest = sound[count * WINDOW :]

    def _judge(self, sound: np.ndarray) -> None:
        """Judge whole windows, or none, as at the end of a recording few samples may come."""
        import torch

        with torch.inference_mode():
            for window in torch.from_numpy(sound).reshape(-1, WINDOW):
                self.probabilities.append(float(self.net(window, RATE)))

    def end(self) -> list[Span]:
        """Return where speech was in the recording, in seconds and in order.

        It ends where its probability falls below the threshold, which is up to 0.15 s late, as the
        net remembers. The package by itself waits until it is 0.15 lower, in noise too long.
        """
        from silero_vad import get_speech_timestamps_from_probs

        if len(self.rest):
            self._judge(np.pad(self.rest, (0, WINDOW - len(self.rest))))
        found = get_speech_timestamps_from_probs(
            self.probabilities,
            sampling_rate=RATE,
            threshold=self.threshold,
            neg_threshold=self.threshold,
            min_speech_duration_ms=MIN_SPEECH_MS,
            min_silence_duration_ms=MIN_SILENCE_MS,
            speech_pad_ms=0,
            audio_length_samples=self.samples,
        )
        return [(span["start"] / RATE, span["end"] / RATE) for span in found]

    def quietest(self, begin: float, end: float) -> float:
        """Return the time between two, in seconds, at which speech was least likely."""
        first = int(begin / SECONDS)
        few = self.probabilities[first : max(first + 1, int(end / SECONDS))]
        return min(end, max(begin, (first + int(np.argmin(few)) + 0.5) * SECONDS))


def detector(cfg: AsrConfig) -> SpeechDetector:
    """Return the detector that a configuration asks for."""
    return SpeechDetector(cfg.speech_threshold)
