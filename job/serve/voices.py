"""The voices of a run: its newest and its best checkpoint, loaded when they are wanted."""

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import soundfile

from data.text.languages import LANGUAGES
from job.options.voice import MAX_SECONDS
from job.reports.heard import Heard, events_of, heard
from job.voice.source import opened, source_of
from job.voice.voice import PreparedSpeech, SpeechRequest, Voice
from trainable.run.storage import BEST, checkpoints
from trainable.weights.sources import is_published

NEWEST, THIS = "newest", "this"


@dataclass(frozen=True)
class Spoken:
    """A sentence that was spoken, or why it was not.

    Attributes:
        wav: content of a WAV file of 16 bits; empty if it was not spoken.
        seconds: its length.
        step: global steps of the checkpoint that spoke.
        error: why it was not spoken.
    """

    wav: bytes = b""
    seconds: float = 0.0
    step: int = 0
    error: str = ""


@dataclass(frozen=True)
class Described:
    """What a page offers.

    Attributes:
        name: name of the voice.
        step: global steps of the checkpoint that speaks.
        speakers: names of its speakers; empty for a voice of one recording.
        languages: codes of the languages.
        checkpoints: which of them may be chosen.
        sounds: what was spoken at the run's validations, without the sounds themselves.
    """

    name: str
    step: int
    speakers: tuple[str, ...]
    languages: tuple[str, ...]
    checkpoints: tuple[str, ...]
    sounds: tuple[Heard, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    voice: Voice
    newest: str | None  # checkpoint of the run when it was loaded


class Voices:
    """The checkpoints of a run that speak; safe to use from several threads, one at a time.

    Args:
        given: a run, RUN/best, a checkpoint, or published files (see job.synthesize).
        device: device that computes.
        weights: which of GENERATORS speaks.
        reference: file of a recording of the speaker, for a voice without a speaker table.
        max_seconds: longest speech in one piece.

    Raises:
        ValueError: there is no voice, or it needs a recording.
        OSError: it cannot be read.
    """

    def __init__(
        self,
        given: str,
        device: str = "cpu",
        weights: str = "g",
        reference: str | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.source = source_of(given)
        self.options = (device, reference, weights, max_seconds)
        is_run = not is_published(self.source) and bool(checkpoints(self.source))
        self.run = self.source if is_run else None
        self.choices = (NEWEST, BEST) if is_run else (THIS,)
        self._loaded: dict[str, _Loaded] = {}
        self._read: tuple[dict[str, int], list[Heard]] | None = None
        self._lock = threading.Lock()
        with self._lock:
            self._voice(self.choices[0])

    def described(self) -> Described:
        """Return what a page offers.

        Raises:
            ValueError: the newest checkpoint cannot be loaded.
            OSError: the run cannot be read.
        """
        with self._lock:
            voice = self._voice(self.choices[0])
        table = sorted(voice.info.speakers, key=voice.info.speakers.__getitem__)
        return Described(
            self.source.rstrip("/").rpartition("/")[2],
            voice.info.position.step,
            tuple(table) if voice.g.n_speakers else (),
            tuple(LANGUAGES),
            self.choices,
            tuple(replace(sound, wav=b"") for sound in self._sounds()),
        )

    def heard(self, tag: str, step: int) -> bytes:
        """Return what was spoken at a validation, a WAV file; empty if there is no such sound.

        Raises:
            OSError: the run cannot be read.
        """
        found = (each.wav for each in self._sounds() if (each.tag, each.step) == (tag, step))
        return next(found, b"")

    def _sounds(self) -> list[Heard]:
        """Return what was spoken at the run's validations; read again if there is more."""
        if self.run is None:
            return []
        written = events_of(self.run)
        with self._lock:
            if self._read is None or self._read[0] != written:
                self._read = (written, heard(self.run))
            return self._read[1]

    def check(self, which: str, request: SpeechRequest) -> None:
        """Refuse what can never be spoken.

        Args:
            which: which of the choices is to speak; empty for the first one.
            request: what it is to say.

        Raises:
            ValueError: there is no such checkpoint or speaker.
            OSError: the run cannot be read.
        """
        if which and which not in self.choices:
            raise ValueError(f"checkpoint is {which!r}: give one of {', '.join(self.choices)}")
        with self._lock:
            self._voice(which).speaker_row(request.speaker)

    def say(self, wanted: Sequence[tuple[str, SpeechRequest]]) -> list[Spoken]:
        """Speak sentences, those of one checkpoint in one batch.

        Args:
            wanted: which of the choices speaks (empty for the first one), and what.

        Returns:
            What was spoken, or why it was not, in the same order.
        """
        found: dict[int, Spoken] = {}
        with self._lock:
            for which in dict.fromkeys(which for which, _ in wanted):
                own = {i: request for i, (other, request) in enumerate(wanted) if other == which}
                found |= self._said(which, own)
        return [found[i] for i in range(len(wanted))]

    def _said(self, which: str, wanted: dict[int, SpeechRequest]) -> dict[int, Spoken]:
        try:
            voice = self._voice(which)
        except (ValueError, OSError) as error:
            return dict.fromkeys(wanted, Spoken(error=str(error)))
        found = {}
        prepared = {}
        for i, request in wanted.items():
            try:
                prepared[i] = voice.read(request)
            except ValueError as error:
                found[i] = Spoken(error=str(error))
        return found | _spoken(voice, prepared)

    def _voice(self, which: str) -> Voice:
        """Return a voice, loaded again if its run has a newer checkpoint."""
        which = which or self.choices[0]
        newest = None if self.run is None else next(iter(checkpoints(self.run)), None)
        loaded = self._loaded.get(which)
        if loaded is not None and loaded.newest == newest:
            return loaded.voice
        with opened(self.source + (f"/{BEST}" if which == BEST else "")) as folder:
            voice = Voice.load(folder, *self.options)
        if loaded is not None and loaded.voice.info == voice.info:
            voice = loaded.voice
        self._loaded[which] = _Loaded(voice, newest)
        return voice


def _spoken(voice: Voice, prepared: dict[int, PreparedSpeech]) -> dict[int, Spoken]:
    """Speak texts in one batch; each alone if one of them is too long."""
    if not prepared:
        return {}
    try:
        waves = voice.speak(list(prepared.values()))
    except ValueError as error:
        if len(prepared) > 1:
            alone = [_spoken(voice, {i: speech}) for i, speech in prepared.items()]
            return {i: spoken for each in alone for i, spoken in each.items()}
        return dict.fromkeys(prepared, Spoken(error=str(error)))
    rate = voice.data.sampling_rate
    made = (_sounding(wave, rate) for wave in waves)
    step = voice.info.position.step
    return {i: replace(each, step=step) for i, each in zip(prepared, made, strict=True)}


def _sounding(wave: np.ndarray, rate: int) -> Spoken:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.clip(-1, 1), rate, format="WAV", subtype="PCM_16")
    return Spoken(buffer.getvalue(), len(wave) / rate)
