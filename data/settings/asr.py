"""Configuration of job.transcribe: how recordings are cut, and who hears what is said."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from data.settings.declared import Amount, Count, Range, Settings, Share, Text
from data.text.languages import LANGUAGES, code_of


@dataclass(frozen=True)
class AsrConfig(Settings, section="data.asr"):
    """How job.transcribe cuts recordings and hears what is said (docs/transcribe.md).

    Attributes:
        model: recogniser: a folder or a name on the hub; a Whisper, or one of the CTC kind.
        revision: hub revision of `model`.
        command: a command line that recognises in place of `model`: it is given the name of a file
            that lists wavs, and prints a line of JSON for each.
        language: language of all recordings; none: as the recogniser hears it.
        batch: slices that are recognised together.
        gpus_per_actor: share of a GPU that each process with a recogniser takes.
        min_confidence: what the recogniser is less sure of is dropped.
        speech_threshold: smallest probability of speech, by silero-vad, that counts as speech.
        pause: seconds of silence that end a slice.
        join_pause: a slice shorter than `min_seconds` is joined to the nearer of its neighbours
            across a silence of at most so many seconds; what is short and alone stays as it is.
        margin: seconds of silence that a slice keeps at both ends.
        min_seconds: what slices are joined to reach, and not cut below.
        max_seconds: longest slice; what is longer is cut at its longest silences.
        speaker: who speaks: the first `folder` below that of the recordings, or the `file`, by name
            without its ending.
        speaker_pattern: regular expression that is looked for in a recording's path below that of
            the recordings; its one group is the speaker.
    """

    model: Text = "openai/whisper-large-v3"
    revision: Text | None = None
    command: Text | None = None
    language: Text | None = None
    batch: Count = 16
    gpus_per_actor: Annotated[float, Range(above=0, high=1)] = 1.0
    min_confidence: Share = 0.0
    speech_threshold: Annotated[float, Range(above=0, below=1)] = 0.5
    pause: Annotated[float, Range(0.1)] = 0.5
    join_pause: Amount = 0.6
    margin: Amount = 0.06
    min_seconds: Amount = 2.0
    max_seconds: Annotated[float, Range(1)] = 12.0
    speaker: Literal["folder", "file"] = "folder"
    speaker_pattern: Text | None = None

    def problems(self) -> Iterator[str]:
        """Yield what cannot be heard or cut so."""
        if self.model == "random":
            yield "data.asr.model is random, which hears nothing: give a folder or hub name"
        if self.language is not None and code_of(self.language) is None:
            yield f"data.asr.language is {self.language!r}: give one of {', '.join(LANGUAGES)}"
        if 2 * (self.min_seconds + self.margin) > self.max_seconds:
            yield (
                f"data.asr.max_seconds is {self.max_seconds:g}: it must be at least twice "
                f"data.asr.min_seconds {self.min_seconds:g} and the margins, or what is too long "
                "cannot be halved"
            )
        yield from self._problems_of_the_pattern()

    def _problems_of_the_pattern(self) -> Iterator[str]:
        if self.speaker_pattern is None:
            return
        try:
            groups = re.compile(self.speaker_pattern).groups
        except re.error as error:
            yield (
                f"data.asr.speaker_pattern is {self.speaker_pattern!r}: no regular expression: "
                f"{error}"
            )
            return
        if groups != 1:
            yield (
                f"data.asr.speaker_pattern is {self.speaker_pattern!r}: it has {groups} groups: "
                "put the speaker in brackets, and nothing else, as in ^([^/]+)/"
            )
