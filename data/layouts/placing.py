"""Where the recordings of a file's rows lie, and what the rows do not say themselves."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

from data.audio.embedded import is_embedded, row_of
from data.files import UnreachableError, is_uri, located, reachable
from data.layouts.layout import DRIVE, Layout, folder_of, is_absolute, joined, posix_path
from data.layouts.rows import Row

# folders that say nothing of who speaks
OF_SPLITS = ("train", "dev", "test", "validation", "valid", "val", "data", "default")
LOOKED_FOR = 20  # recordings, of each place where they may lie


class Placing:
    """Completes the rows of a file.

    Args:
        layout: layout of the file.
        source: where it lies.
        audio_root: folder or URI that paths start from; None for where the layout has them.
        prefix: see data.corpus.transcript.parse_transcript.
        language: data.language.
    """

    def __init__(
        self,
        layout: Layout,
        source: str,
        audio_root: str | None,
        prefix: str,
        language: str | None,
    ) -> None:
        self.layout = layout
        self.source = source
        self.prefix = prefix
        self.language = language or layout.language
        folder = folder_of(source)
        parts = [name for name in folder.split("/") if name and name.lower() not in OF_SPLITS]
        self.given = {
            "stem": posixpath.basename(source).partition(".")[0],
            "folder": parts[-1] if parts else "unnamed",
            "parent": parts[-2] if len(parts) > 1 else "unnamed",
        }
        if found := layout.names(source):
            self.given |= {k: v for k, v in found.groupdict().items() if v}
        self.places = [(joined(folder, way), way, path) for way, path in layout.audio]
        if audio_root is not None:
            paths = dict.fromkeys(path for _, _, path in self.places)
            self.places = [(audio_root, ".", path) for path in paths]
        self.root, self.way, self.path = self.places[0]

    def rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield rows with all fields, once the first ones have told where the recordings are."""
        first = list(islice(rows, LOOKED_FOR))
        self._look([fields for _, _, fields in first if isinstance(fields, dict)])
        for number, raw, fields in chain(first, rows):
            yield number, raw, fields if isinstance(fields, str) else self._complete(fields)

    def _look(self, rows: Sequence[dict[str, Any]]) -> None:
        """Choose the place where a recording of the first rows is.

        Raises:
            ValueError: neither these nor anything else say the language.
        """
        unknown = self.language is None and not any(row.get("language") for row in rows)
        if rows and unknown and self.layout.speaker:
            raise ValueError(
                f"{self.source}: nothing says the language of its lines: set data.language"
            )
        with suppress(UnreachableError):  # the survey says so, of the first place
            for root, way, path in self.places if len(self.places) > 1 else ():
                wanted = (self._path(path, fields) for fields in rows)
                if any(each and (is_uri(each) or _is_there(root, each)) for each in wanted):
                    self.root, self.way, self.path = root, way, path
                    return

    def _path(self, template: str, fields: dict[str, Any]) -> str:
        """Return a row's path by a template; "" where it is not for this row."""
        written = fields.get("path")
        written = posix_path(written.strip()) if isinstance(written, str) else ""
        if not written and ("{path}" in template or "{file}" in template):
            return ""
        if "{file}" in template and not (is_absolute(written) or DRIVE.match(written)):
            return ""
        values = {**self.given, **fields, "path": written, "file": re.split(r"[\\/]", written)[-1]}
        return template.format_map(defaultdict(str, values))

    def _complete(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a row with what they lack."""
        complete = {**fields, **self._recording(fields)}
        if isinstance(fields.get("text"), str):
            complete["text"] = self.layout.text(fields["text"])
        if complete.get("language") in (None, ""):
            complete["language"] = self.language
        if complete.get("speaker") in (None, "") and self.layout.speaker:
            own = self.given.get("speaker")
            complete["speaker"] = own or self.layout.speaker.format_map(self.given)
        return complete

    def _recording(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return path and id of a row; without id, the path from the transcript's folder is it."""
        path = fields.get("path")
        if isinstance(path, str) and is_embedded(path):
            return {"id": self._id(f"{posixpath.basename(self.source)}/{row_of(path)}")}
        if self.path == "{path}":
            return {}
        path = self._path(self.path, fields)
        if self.layout.form == "text":
            return {"path": path, "id": self._id(f"{self.way}/{path}")}
        return {"path": path, "id": None} if self.layout.patterns else {"path": path}

    def _id(self, path: str) -> str:
        way = posixpath.normpath(posixpath.join(self.prefix, path))
        return re.sub(r"^(\.\./)+", "", way)


def _is_there(root: str, path: str) -> bool:
    """Tell whether a recording is there.

    Raises:
        UnreachableError: its store does not answer.
    """
    uri = path if is_absolute(path) or not root else f"{root.rstrip('/')}/{path}"
    try:
        with reachable(uri):
            fs, name = located(uri)
            return bool(fs.info(name)["type"] == "file")
    except UnreachableError:
        raise
    except (OSError, ValueError):
        return False
