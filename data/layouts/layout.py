"""What a layout declares, and what follows from it for the rows of a file."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from data.files import is_uri

DRIVE = re.compile(r"[A-Za-z]:[\\/]")  # of a path of Windows
FIELDS = ("path", "speaker", "language", "text")
OPTIONAL = ("id", "split")
AUDIO = r"[^|]*\.(?:wav|flac|mp3|ogg|opus|aiff?|m4a|WAV|FLAC|MP3)"

# field of a line -> names that columns of public tables have for it, the best first
COLUMNS = {
    "path": ("path", "file_name", "audio_filepath", "audio_path", "audio_file", "file", "audio"),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id", "spk_id", "spk"),
    "language": ("language", "lang", "locale"),
    "text": (
        *("text", "normalized_text", "text_normalized", "sentence", "transcription"),
        *("transcript", "text_original", "raw_text"),
    ),
}
NORMALISED = ("normalized_text", "text_normalized")


@dataclass(frozen=True)
class Layout:
    """Where the lines of a corpus stand, and where its recordings lie.

    Attributes:
        name: value of data.layout.
        form: `lines`: each matches one of `patterns`; `table`: a header names the columns, or
            each line is an object; `text`: a file holds what one recording says.
        files: patterns of paths in a folder; the first that any file has finds them all. Their
            groups are fields.
        named: whether its files always have such names; else their lines alone tell.
        patterns: of lines, with fields as groups; that of most of a file's first lines counts.
            None: lines are path|speaker|language|text, and tables have these columns.
        audio: folders, seen from the file's, and paths in them, made of fields: the first of which
            one of the first lines finds a recording. {file} is a path's last part, {stem} the
            file's name without suffix, {folder} its folder's name and {parent} that one's folder's.
        speaker: who speaks, made of fields, where no field says it.
        language: language where neither a field nor data.language says it.
        text: makes the text of what stands there.
        what: what a line looks like, for messages.
    """

    name: str
    form: Literal["lines", "table", "text"] = "lines"
    files: tuple[str, ...] = ()
    named: bool = True
    patterns: tuple[str, ...] = ()
    audio: tuple[tuple[str, str], ...] = ((".", "{path}"),)
    speaker: str = "{folder}"
    language: str | None = None
    text: Callable[[str], str] = str.strip
    what: str = ""

    def names(self, source: str) -> re.Match[str] | None:
        """Return the match of the first of `files` that a path has."""
        matches = (re.search(pattern, f"/{source}") for pattern in self.files)
        return next(filter(None, matches), None)


def columns_of(names: Collection[str]) -> dict[str, str]:
    """Return field -> column, for those fields that a table has."""
    found = {}
    for field, known in COLUMNS.items():
        preferred = NORMALISED if field == "text" else ()
        own = next((name for name in (*preferred, *known) if name in names), None)
        if own is not None:
            found[field] = own
    return found


def joined(folder: str, path: str) -> str:
    """Return a folder or URI seen from another one: `..` is the folder above."""
    for part in path.split("/"):
        if part == "..":
            above, slash, name = folder.rpartition("/")
            folder = f"{folder or '.'}/.." if name in ("", ".", "..") else above or slash or "."
        elif part != ".":
            folder = f"{folder}/{part}" if folder else part
    return folder


def posix_path(path: str) -> str:
    """Return a path as this machine writes it: wavs\\1.flac as wavs/1.flac."""
    if "\\" not in path or "/" in path or DRIVE.match(path):
        return path
    return path.replace("\\", "/").removeprefix("./")


def is_absolute(path: str) -> bool:
    """Tell whether a path needs no folder before it: it is a URI, or starts at the root."""
    return is_uri(path) or path.startswith("/")


def folder_of(uri: str) -> str:
    """Return the folder of a file or URI; "" for a name alone."""
    folder, slash, _ = uri.rpartition("/")
    return folder or slash
