"""Cuts a recording: finds its speech, decides on slices, and writes them as WAV.

It never holds a whole recording: it reads it twice, in blocks, first to find the speech, then to
write the slices.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
import soxr
from fsspec.implementations.local import LocalFileSystem

from data.audio.recording import check_channels
from data.audio.whole import UNKNOWN_FRAMES, knows_its_length
from data.config import DataConfig
from data.files import UnreachableError, below, located, put_file, reachable
from data.rejected import Reason, RejectedError
from data.settings.asr import AsrConfig
from data.transcribe.activity import RATE, SpeechDetector, detector
from data.transcribe.records.listing import CONVERTED_FIRST, Source, slice_path
from data.transcribe.slicing import Slice, Span, slices_of

BLOCK_SECONDS = 30
HEAD = 1 << 16  # bytes in which an MP3 tells its length


class Cutter:
    """Cuts recordings.

    Args:
        cfg: `min_seconds`, and `asr`.
        out: folder or URI that the slices are written below.
        make: makes the detector of speech, when the first recording comes.
    """

    def __init__(
        self, cfg: DataConfig, out: str, make: Callable[[AsrConfig], SpeechDetector] = detector
    ) -> None:
        self.cfg = cfg
        self.out = out
        self.make = make
        self.detector: SpeechDetector | None = None

    def load(self) -> None:
        """Load the detector, which may take long."""
        if self.detector is None:
            self.detector = self.make(self.cfg.asr)

    def __call__(
        self, source: Source, goes_on: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Cut a recording and write its slices.

        Args:
            source: the recording.
            goes_on: called before each block and slice, none of which should take long.

        Returns:
            What the journal keeps: `name`, `version`, `rate` (Hz), `samples` (per channel),
            `slices` and `too_short` ([begin, end, forced] in samples), `missing` (samples that its
            header promises and it lacks), and `problem` ([reason, detail], or None).

        Raises:
            OSError: the store does not answer, or a slice cannot be written.
        """
        try:
            cut = self._cut(source, goes_on)
        except RejectedError as error:
            return rejected(source, error)
        return {"name": source.name, "version": source.version, "problem": None, **cut}

    def _cut(self, source: Source, goes_on: Callable[[], None]) -> dict[str, Any]:
        self.load()
        goes_on()
        with opened(source) as file:
            speech, heard, promised = self._speech(file, goes_on)
            rate = file.samplerate
            duration = heard / rate
            assert self.detector is not None
            cut = slices_of(speech, duration, self.cfg.asr, self.detector.quietest)
            spans = [_in_samples(each, rate, heard) for each in cut]
            shortest = self.cfg.min_seconds * rate
            kept = [span for span in spans if span[1] - span[0] >= shortest]
            short = [span for span in spans if span[1] - span[0] < shortest]
            for number, (begin, end, _) in enumerate(kept, start=1):
                goes_on()
                self._write(file, begin, end, slice_path(source.name, number))
        return {
            "rate": rate,
            "samples": max(heard, promised),
            "missing": max(0, promised - heard),
            "slices": kept,
            "too_short": short,
        }

    def _speech(
        self, file: soundfile.SoundFile, goes_on: Callable[[], None]
    ) -> tuple[list[Span], int, int]:
        """Return where speech is, how many samples there are, and how many were promised."""
        assert self.detector is not None
        self.detector.begin()
        resampler = soxr.ResampleStream(file.samplerate, RATE, 1, dtype="float32")
        heard = 0
        for block in mono_blocks(file):
            heard += len(block)
            self.detector.hear(resampler.resample_chunk(block))
            goes_on()
        self.detector.hear(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if not heard:
            raise RejectedError(Reason.TOO_SHORT, "it holds no sound")
        promised = file.frames if file.frames < UNKNOWN_FRAMES else heard
        return self.detector.end(), heard, promised if file.tells_length else heard

    def _write(self, file: soundfile.SoundFile, begin: int, end: int, path: str) -> None:
        file.seek(begin)
        wav = file.read(end - begin, dtype="float32", always_2d=True).mean(axis=1)
        wav /= max(np.float32(1), np.abs(wav).max(initial=0))
        sink = io.BytesIO()
        soundfile.write(sink, wav, file.samplerate, format="WAV", subtype="PCM_16")
        put_file(below(self.out, path), sink.getvalue())


def rejected(source: Source, error: RejectedError) -> dict[str, Any]:
    """Return what the journal keeps of a recording that cannot be cut."""
    nothing = {"rate": 0, "samples": 0, "missing": 0, "slices": [], "too_short": []}
    problem = [error.reason.value, error.detail]
    return {"name": source.name, "version": source.version, "problem": problem, **nothing}


def _in_samples(cut: Slice, rate: int, samples: int) -> tuple[int, int, bool]:
    begin, end = (min(samples, max(0, round(time * rate))) for time in (cut.begin, cut.end))
    return begin, end, cut.forced


class _SoundFile(soundfile.SoundFile):
    """A recording that is read in parts.

    Attributes:
        tells_length: whether the number of its frames is more than a guess.
    """

    tells_length = True


@contextlib.contextmanager
def opened(source: Source) -> Iterator[_SoundFile]:
    """Open a recording, in which errors of decoding become RejectedError.

    Raises:
        RejectedError: missing_audio, unreadable_audio.
        UnreachableError: the store does not answer.
    """
    uri = source.uri
    try:
        with contextlib.ExitStack() as stack:
            with reachable(uri):
                fs, path = located(uri)
                stream = stack.enter_context(fs.open(path, "rb"))
                head = stream.read(HEAD)
                stream.seek(0)
            # libsndfile reads what is here by itself, which is faster
            place = path if isinstance(fs, LocalFileSystem) else stream
            file = stack.enter_context(_SoundFile(place))
            file.tells_length = knows_its_length(head, file.format)
            yield file
    except UnreachableError:
        raise
    except FileNotFoundError as error:
        raise RejectedError(Reason.MISSING_AUDIO, f"there is no {uri}") from error
    except soundfile.SoundFileError as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, _undecodable(source, error)) from error
    except PermissionError as error:
        raise RejectedError(Reason.UNREADABLE_AUDIO, f"{uri} cannot be read: {error}") from error


def _undecodable(source: Source, error: Exception) -> str:
    ending = source.name.rpartition(".")[2].lower()
    reason = str(error).rpartition(": ")[2]
    if ending in CONVERTED_FIRST:
        return f".{ending} is not decoded ({reason}): convert it, as with ffmpeg -i FILE FILE.flac"
    return f"not decodable: {reason}"


def mono_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yield a recording from its beginning, float32 [samples] each, its channels' mean.

    Raises:
        RejectedError: not_finite, channels_cancel.
    """
    frames = BLOCK_SECONDS * file.samplerate
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise RejectedError(Reason.NOT_FINITE, "it holds NaN or infinite samples")
        wav = block.mean(axis=1)
        check_channels(block, wav)
        yield wav
