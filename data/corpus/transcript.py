"""Reads transcripts: what is said in which recording, by whom and in which language, UTF-8.

Three formats, told apart by the name: lines `path|speaker|language|text`, whose text may hold `|`;
or a table of `path`, `speaker`, `language`, `text` and optionally `id` and `split`, as one JSON
object per line (.jsonl) or as Parquet (.parquet). A glob names several. Lines end with LF, CRLF or
CR, also mixed; byte order marks and blank lines are tolerated. Languages have their usual names
(zh, ja, JP, en_US), and relative paths may have backslashes.

Relative paths start from data.audio_root, or else from the transcript's folder, and do not leave
it; absolute paths and URIs are taken as they are. The path is the utterance's id if the table gives
none.
"""

import glob
import hashlib
import json
import posixpath
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from typing import Any

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from data.corpus.ledger import Reject
from data.corpus.tables.files import TableFile, hash64, repeated
from data.corpus.tables.lines import AT_A_TIME, COLUMNS, Lines, TranscriptLine
from data.files import has_credentials, located, reachable, read_file
from data.layouts.finding import AUTO, files_in, layout_of
from data.layouts.layout import DRIVE, FIELDS, OPTIONAL, folder_of, is_absolute, posix_path
from data.layouts.placing import Placing
from data.layouts.rows import NOT_UTF_8, rows_of
from data.names import visible_name
from data.rejected import Reason
from data.shards.manifest import SPLITS
from data.text.languages import LANGUAGES, code_of


@dataclass(frozen=True)
class Transcript:
    """A transcript: every line that is not blank is in `lines` or in `rejects`.

    Attributes:
        uri: file, URI or glob.
        lines: usable lines of all files, which lie in a file themselves.
        rejects: the other lines.
        digest: identity of what the files hold.
    """

    uri: str
    lines: Lines
    rejects: list[Reject]
    digest: str = ""

    @property
    def count(self) -> int:
        """Number of lines that are not blank."""
        return len(self.lines) + len(self.rejects)


def read_transcript(
    uri: str,
    audio_root: str | None = None,
    max_foreign: float = 1.0,
    layout: str = AUTO,
    language: str | None = None,
) -> Transcript:
    """Read a transcript, or all those that a glob names or a folder holds.

    Args:
        uri: file, folder, URI or glob. With a glob, ids that are paths start from the folder before
            its first wildcard.
        audio_root: folder or URI that relative paths start from; None for each transcript's folder.
        max_foreign: a file is refused of which a larger share of lines is not UTF-8.
        layout: see data.config.DataConfig.
        language: likewise.

    Raises:
        ValueError: there is no such file, it is in another encoding, a table lacks a column, or
            nothing says the language.
    """
    if not uri:
        raise ValueError(
            "data.transcript is not set: "
            "name a file with one line `path|speaker|language|text` per utterance"
        )
    usable = _Usable()
    rejects: list[Reject] = []
    parts = []
    for source, prefix, content in _read(uri, layout):
        count, refused = len(usable), []
        for line in _parsed(source, content, audio_root, prefix, layout, language):
            if isinstance(line, Reject):
                refused.append(line)
            else:
                usable.append(line)
        _check_encoding(refused, len(usable) - count + len(refused), max_foreign)
        rejects += refused
        parts.append(_part_of_digest(prefix, content))
    lines, repeated = usable.without_duplicates()
    return Transcript(uri, lines, rejects + repeated, _joined(parts, layout, language))


def transcript_digest(uri: str, layout: str = AUTO, language: str | None = None) -> str:
    """Return `Transcript.digest` without a look at the lines.

    Args: see `read_transcript`.

    Raises:
        ValueError: there is no such file.
        OSError: it cannot be read.
    """
    parts = [_part_of_digest(prefix, content) for _, prefix, content in _read(uri, layout)]
    return _joined(parts, layout, language)


def _read(uri: str, layout: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, way (see `_find`) and content of each file that a name or glob means."""
    for source, prefix in _find(uri, layout):
        try:
            yield source, prefix, read_file(source)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ValueError(f"there is no transcript at {source}: set data.transcript") from error


def _part_of_digest(prefix: str, content: bytes) -> tuple[str, str]:
    """Return what the digest holds of a file: how its utterances' ids begin, and its content."""
    return prefix, hashlib.sha256(content).hexdigest()


def _joined(parts: Sequence[tuple[str, str]], layout: str, language: str | None) -> str:
    # a digest of before, where neither is set
    asked = [*parts] if (layout, language) == (AUTO, None) else [*parts, (layout, language)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _check_encoding(rejects: Sequence[Reject], lines: int, max_foreign: float) -> None:
    """Refuse a file in another encoding at once, rather than line by line.

    Args:
        rejects: rejected lines of the file.
        lines: number of its lines.
        max_foreign: see `read_transcript`.

    Raises:
        ValueError: names the first such line, and the encoding that it seems to be.
    """
    foreign = [line for line in rejects if line.detail.startswith(NOT_UTF_8)]
    if len(foreign) > max_foreign * lines:
        first = foreign[0]
        raise ValueError(
            f"{first.source}:{first.number}: {first.detail} ({len(foreign)} of {lines} lines)"
        )


def parse_transcript(
    source: str, content: bytes, audio_root: str | None = None, prefix: str = "."
) -> list[TranscriptLine | Reject]:
    """Return the lines of one file; duplicates are not looked for.

    Args:
        source: where the file lies; its name tells its format.
        content: the whole file.
        audio_root: folder or URI that relative paths start from; None for the file's folder.
        prefix: put before relative paths to make ids of them.

    Raises:
        ValueError: the file is not readable Parquet or lacks a column, is UTF-16 or UTF-32, or a
            path holds a password.
    """
    return list(_parsed(source, content, audio_root, prefix))


def _parsed(
    source: str,
    content: bytes,
    audio_root: str | None,
    prefix: str,
    layout: str = AUTO,
    language: str | None = None,
) -> Iterator[TranscriptLine | Reject]:
    """Yield what `parse_transcript` returns."""
    own = layout_of(source, content, layout)
    placing = Placing(own, source, audio_root, prefix, language)
    for number, raw, fields in placing.rows(rows_of(source, content, own)):
        if isinstance(fields, str):
            yield Reject(source, number, Reason.MALFORMED_LINE, fields, raw)
        else:
            yield _check(source, number, raw, fields, placing.root, prefix)


def _check(
    source: str, number: int, raw: str, fields: dict[str, Any], root: str, prefix: str
) -> TranscriptLine | Reject:
    """Return a row's fields as a line, or why they are none."""
    path, speaker, language, text = (_text_of(fields, name) for name in FIELDS)
    path = posix_path(path)
    speaker = visible_name(speaker)
    code = code_of(language)

    def reject(reason: Reason, detail: str) -> Reject:
        shown = (value.encode(errors="backslashreplace").decode() for value in (speaker, language))
        return Reject(source, number, reason, detail, raw, *shown)

    for name in (*FIELDS, *OPTIONAL):
        value = fields.get(name)
        if value is not None and not isinstance(value, str) and not _text_of(fields, name):
            return reject(Reason.MALFORMED_LINE, f"{name} is {value!r}, not a text")
    if has_credentials(path):  # not a reject, as the ledger would hold it
        raise ValueError(
            f"{source}:{number}: the path holds a password, key or token: "
            "pass it through the environment"
        )
    utterance = _text_of(fields, "id")
    if not utterance:
        in_corpus = posixpath.normpath(posixpath.join(prefix, path))
        utterance = path if is_absolute(path) else in_corpus

    if problem := _malformed(path, speaker, utterance, text):
        return reject(Reason.MALFORMED_LINE, problem)
    if not is_absolute(path) and posixpath.normpath(path).split("/")[0] == "..":
        where = root or "the transcript's folder"
        detail = f"{path} lies outside {where}: set data.audio_root, or write it in full"
        return reject(Reason.PATH_LEAVES_ROOT, detail)
    if DRIVE.match(path):
        detail = f"{path} is a path of a Windows machine: write it from data.audio_root on"
        return reject(Reason.MISSING_AUDIO, detail)
    if code is None:
        detail = f"language {language!r} is none of {', '.join(LANGUAGES)}"
        return reject(Reason.UNKNOWN_LANGUAGE, detail)
    split = _text_of(fields, "split") or None
    if split not in (None, *SPLITS):
        detail = f"split {split!r} is none of {', '.join(SPLITS)}"
        return reject(Reason.UNKNOWN_SPLIT, detail)
    if not text:
        return reject(Reason.EMPTY_TEXT, "the text is empty")

    uri = path if is_absolute(path) or not root else posixpath.join(root, path)
    return TranscriptLine(source, number, utterance, uri, speaker, code, text, split, raw)


def _text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text, "" if it is none; speakers and ids may be whole numbers."""
    value = fields.get(name)
    if isinstance(value, str):
        return value.strip()
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number and name in ("speaker", "id") else ""


def _malformed(path: str, speaker: str, utterance: str, text: str) -> str:
    """Return what makes a line of these fields malformed, or ""."""
    if not path or not speaker:
        return "the path or the speaker is empty"
    names = path + speaker + utterance
    if any(ord(char) < 32 or ord(char) == 127 for char in names) or "\0" in text:
        return "the path, speaker or id holds a control character, or the text a NUL"
    if "\x1b" in text:
        return "the text holds escape characters: it seems to be ISO-2022-JP, save it as UTF-8"
    if any(0xD800 <= ord(char) < 0xE000 for char in names + text):
        return "half of a UTF-16 surrogate pair"
    return ""


class _Usable:
    """Usable lines on their way to a file."""

    def __init__(self) -> None:
        self.table = TableFile(COLUMNS)
        self.waiting: list[TranscriptLine] = []
        self.hashes = array("Q")  # of the ids

    def __len__(self) -> int:
        return len(self.hashes)

    def append(self, line: TranscriptLine) -> None:
        """Add a line."""
        self.waiting.append(line)
        self.hashes.append(hash64(line.id))
        if len(self.waiting) == AT_A_TIME:
            self._write()

    def without_duplicates(self) -> tuple[Lines, list[Reject]]:
        """Return the lines, the first of each id alone, and the others as rejects."""
        self._write()
        lines = Lines(self.table)
        suspects = np.flatnonzero(repeated(np.frombuffer(self.hashes, np.uint64)))

        first: dict[str, TranscriptLine] = {}
        numbers, rejects = [], []
        for number in suspects.tolist():
            line = lines[number]
            earlier = first.setdefault(line.id, line)
            if earlier is line:
                continue
            detail = f"{earlier.source}:{earlier.number} names {line.id} already"
            if line.text != earlier.text:
                detail += f", with another text: {earlier.text!r}"
            rejects.append(line.reject(Reason.DUPLICATE_ID, detail))
            numbers.append(number)
        if not numbers:
            return lines, []
        return Lines(self.table, np.delete(np.arange(len(lines)), numbers)), rejects

    def _write(self) -> None:
        columns = {name: [getattr(line, name) for line in self.waiting] for name in COLUMNS.names}
        self.table.append(pa.table(columns, schema=COLUMNS))
        self.waiting = []


def _find(uri: str, layout: str) -> list[tuple[str, str]]:
    """Return the files that a name or glob means, or those of a folder, sorted.

    Each comes with the way to its folder from the folder before the first wildcard. What exists is
    never a wildcard: `anna [v2]/*.list` are the files of that folder.
    """
    fs, path = located(uri)
    with reachable(uri):
        is_one = not has_magic(path) or fs.exists(path)
        is_folder = is_one and fs.isdir(path)
        stem, pattern = ("", "") if is_one else _literal_part(fs, path)
        found = [] if is_one else sorted(fs.glob(f"{glob.escape(stem)}/{pattern}"))
    if is_one:
        return files_in(uri, layout) if is_folder else [(uri, ".")]
    if not found:
        raise ValueError(f"no transcript matches {uri}: set data.transcript")

    ways = [posixpath.relpath(folder_of(name), stem or "/") for name in found]
    if not isinstance(fs, LocalFileSystem):
        found = [fs.unstrip_protocol(name) for name in found]
    return list(zip(found, ways, strict=True))


def _literal_part(fs: AbstractFileSystem, path: str) -> tuple[str, str]:
    """Return the folder before the first wildcard of a glob, and the rest of it."""
    names = path.split("/")
    wild = [number for number, name in enumerate(names) if has_magic(name)]
    while wild and fs.isdir("/".join(names[: wild[0] + 1])):
        wild = wild[1:]
    first = wild[0] if wild else len(names) - 1
    return "/".join(names[:first]), "/".join(names[first:])
