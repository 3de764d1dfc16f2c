"""Reads a transcript: a line `path|speaker|language|text` an utterance, UTF-8.

The text may contain `|`. A byte order mark and CRLF are tolerated. Paths are relative to the transcript's folder;
absolute paths and URIs are taken as they are. The path as written is the utterance's id.
"""

from dataclasses import dataclass

import fsspec

from data.config import LANGUAGES
from data.ledger import Reason, Reject


@dataclass(frozen=True)
class TranscriptLine:
    """A usable line.

    Attributes:
        number: line of the file, from 1.
        path: the recording as written; the utterance's id.
        speaker: name of the speaker.
        language: one of data.config.LANGUAGES.
        text: what is said.
        raw: the whole line as written.
    """

    number: int
    path: str
    speaker: str
    language: str
    text: str
    raw: str

    def reject(self, reason: Reason, detail: str) -> Reject:
        """This line as a reject."""
        return Reject(self.number, reason, detail, self.raw, self.speaker, self.language)


@dataclass(frozen=True)
class Transcript:
    """A transcript that was read: every line that is not blank is in `lines` or in `rejects`."""

    uri: str
    lines: list[TranscriptLine]
    rejects: list[Reject]

    @property
    def count(self) -> int:
        """Lines read, blank ones left out."""
        return len(self.lines) + len(self.rejects)

    def audio_uri(self, line: TranscriptLine) -> str:
        """Where the recording of a line lies."""
        if "://" in line.path or line.path.startswith("/"):
            return line.path
        folder, slash, _ = self.uri.rpartition("/")
        return f"{folder}{slash}{line.path}"


def read_transcript(uri: str) -> Transcript:
    """Read a transcript.

    Args:
        uri: file or URI.

    Raises:
        ValueError: there is no such file.
    """
    if not uri:
        raise ValueError(
            "data.transcript is not set: name a file with a line `path|speaker|language|text` an utterance"
        )
    fs, path = fsspec.core.url_to_fs(uri)
    try:
        content = fs.cat_file(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"there is no transcript at {uri}: set data.transcript") from error
    return parse_transcript(uri, content)


def parse_transcript(uri: str, content: bytes) -> Transcript:
    """Split a transcript's bytes into usable lines and rejects.

    Args:
        uri: where it lies; recordings are looked up beside it.
        content: the whole file.
    """
    lines: list[TranscriptLine] = []
    rejects: list[Reject] = []
    first_line: dict[str, int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        line = _parse_line(number, raw.removesuffix(b"\r"))
        if isinstance(line, TranscriptLine) and line.path in first_line:
            line = line.reject(Reason.DUPLICATE_ID, f"line {first_line[line.path]} names {line.path} already")
        if isinstance(line, Reject):
            rejects.append(line)
        else:
            first_line[line.path] = number
            lines.append(line)
    return Transcript(uri, lines, rejects)


def _parse_line(number: int, raw: bytes) -> TranscriptLine | Reject:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = raw.decode("utf-8", errors="backslashreplace")
        return Reject(number, Reason.MALFORMED_LINE, f"not UTF-8: {error}", shown)
    fields = text.split("|", 3)
    if len(fields) < 4:
        detail = f"{len(fields)} fields, expected path|speaker|language|text"
        return Reject(number, Reason.MALFORMED_LINE, detail, text)
    path, speaker, language, spoken = (field.strip() for field in fields)
    line = TranscriptLine(number, path, speaker, language, spoken, text)
    if not path or not speaker or "\0" in text:
        return line.reject(Reason.MALFORMED_LINE, "the path or the speaker is empty, or the line holds a NUL character")
    if language not in LANGUAGES:
        return line.reject(Reason.UNKNOWN_LANGUAGE, f"language {language!r} is none of {', '.join(LANGUAGES)}")
    if not spoken:
        return line.reject(Reason.EMPTY_TEXT, "the text is empty")
    return line
