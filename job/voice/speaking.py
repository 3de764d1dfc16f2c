"""Texts spoken into files: one after the other into one file, or each into its own."""

import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data.files import below
from job.voice.lines import Line
from job.voice.voice import PreparedSpeech, SpeechRequest, Voice
from job.voice.wave import STDOUT, WaveWriter


def speak_text(
    voice: Voice, requests: Sequence[SpeechRequest], out: str, pause: float
) -> list[str]:
    """Speak texts one after the other into one file.

    Args:
        voice: the voice that speaks.
        requests: sentences, or one whole text.
        out: a file or URI (see WaveWriter), or STDOUT.
        pause: seconds of silence between the texts.

    Returns:
        What could not be spoken, and why.

    Raises:
        ValueError: nothing could be spoken.
    """
    mistakes = []
    with WaveWriter(out, voice.data.sampling_rate) as writer:
        silence = np.zeros(int(pause * writer.rate), np.float32)
        for number, request in enumerate(requests, start=1):
            try:
                wave = voice.say(request)
            except ValueError as error:
                mistakes.append(f"sentence {number}: {error}" if len(requests) > 1 else str(error))
                continue
            # no pause before the first text that can be spoken
            writer.write(np.concatenate([silence, wave]) if writer.samples else wave)
    if not writer.samples:
        raise ValueError("; ".join(mistakes))

    report = f"{out}: {writer.seconds:.2f} s, step {voice.info.position.step}"
    print(report, file=sys.stderr if out == STDOUT else sys.stdout)
    return mistakes


def speak_lines(voice: Voice, lines: Sequence[Line], out: str, batch: int) -> dict[int, str]:
    """Speak lines in batches of similar length, each into `<id>.wav`.

    Args:
        voice: the voice that speaks.
        lines: lines whose ids differ.
        out: folder or URI.
        batch: lines that are spoken together.

    Returns:
        For each line that could not be spoken, number -> why.
    """
    mistakes: dict[int, str] = {}

    # lines of similar length need little padding
    by_length = sorted(lines, key=lambda line: len(line.request.text))
    for start in range(0, len(by_length), batch):
        prepared = list(_prepared(voice, by_length[start : start + batch], mistakes))
        waves = _spoken(voice, prepared, mistakes)
        _write(waves, out, voice.data.sampling_rate)
    return mistakes


def _spoken(
    voice: Voice, prepared: Sequence[tuple[Line, PreparedSpeech]], mistakes: dict[int, str]
) -> dict[str, np.ndarray]:
    """Return id -> waveform of each line; note in `mistakes` why others cannot be spoken."""
    if not prepared:
        return {}
    try:
        waves = voice.speak([speech for _, speech in prepared])
    except ValueError as error:
        # one of them is too long: the others are spoken nevertheless
        if len(prepared) > 1:
            alone = [_spoken(voice, [each], mistakes) for each in prepared]
            return {own: wave for found in alone for own, wave in found.items()}
        mistakes[prepared[0][0].number] = str(error)
        return {}
    return {line.id: wave for (line, _), wave in zip(prepared, waves, strict=True)}


def _prepared(
    voice: Voice, lines: Sequence[Line], mistakes: dict[int, str]
) -> Iterator[tuple[Line, PreparedSpeech]]:
    """Yield each line with its prepared speech; note in `mistakes` why others cannot be read."""
    for line in lines:
        try:
            yield line, voice.read(line.request)
        except ValueError as error:
            mistakes[line.number] = str(error)


def _write(waves: Mapping[str, np.ndarray], out: str, rate: int) -> None:
    """Write waveforms, each float32 [samples], to `<id>.wav` in a folder."""
    for name, wave in waves.items():
        with WaveWriter(below(out, f"{name}.wav"), rate) as writer:
            writer.write(wave)
        print(f"{writer.out}: {writer.seconds:.2f} s")
