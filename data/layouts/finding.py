"""Which files of a folder are transcripts, and which layout a file has."""

import posixpath
import re
from collections.abc import Sequence

from fsspec.implementations.local import LocalFileSystem

from data.files import located, reachable, read_file
from data.layouts.known import BY_NAME, ESD, LAYOUTS
from data.layouts.layout import FIELDS, Layout, columns_of, folder_of
from data.layouts.parquet import column_names
from data.layouts.rows import cells_of, first_lines, matching, object_of

AUTO = "auto"
TABLES = (".tsv", ".csv", ".jsonl", ".parquet")


def layout_of(source: str, content: bytes, name: str = AUTO) -> Layout:
    """Return the layout that a file is read as.

    Args:
        source: where it lies.
        content: the whole file.
        name: data.layout.

    Raises:
        ValueError: the file cannot have the layout of this name.
    """
    if name == AUTO:
        return next((each for each in LAYOUTS if _fits(each, source, content)), ESD)
    layout = BY_NAME[name]
    if layout.form == "text" and not layout.names(source):
        raise ValueError(
            f"{source} is no file of the layout {name} ({layout.what}): set data.layout, or "
            "data.transcript"
        )
    return layout


def _fits(layout: Layout, source: str, content: bytes) -> bool:
    """Tell whether a file seems to have a layout."""
    if layout.named and not layout.names(source):
        return False
    if layout.form == "text":
        return True
    if layout.form == "table":
        if not source.endswith(TABLES):
            return False
        names = set(_columns(source, content))
        ours = {"path", "text"} <= names and "audio" not in names
        return not (ours or names >= set(FIELDS)) and {"path", "text"} <= columns_of(names).keys()
    head = first_lines(source, content)
    return any(2 * matching(pattern, head) > len(head) for pattern in layout.patterns)


def _columns(source: str, content: bytes) -> list[str]:
    """Return the names of a table's columns."""
    if source.endswith(".parquet"):
        return column_names(content)
    head = first_lines(source, content)[:1]
    if source.endswith(".jsonl"):
        return [name for line in head for name in object_of(line)]
    return [name for line in head for name in cells_of(source, line)]


def files_in(uri: str, name: str = AUTO) -> list[tuple[str, str]]:
    """Return the transcripts of a folder, sorted, each with the way from it to the file's folder.

    Args:
        uri: folder.
        name: data.layout.

    Raises:
        ValueError: no layout finds any, or several do.
    """
    with reachable(uri):
        fs, folder = located(uri)
        fs.invalidate_cache(folder)
        paths = sorted(path.removeprefix(folder) for path in fs.find(folder))
    layouts = LAYOUTS if name == AUTO else (BY_NAME[name],)
    found = {}
    for layout in layouts:
        files = _files(layout, paths)
        if files and (name != AUTO or layout_of(files[0], read_file(uri + files[0])) is layout):
            found[layout.name] = files
    if len(found) > 1:
        shown = " and ".join(f"{files[0][1:]} ({each})" for each, files in found.items())
        raise ValueError(f"{uri} holds {shown}: set data.layout, or name the file")
    for files in found.values():
        base = folder if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(folder)
        return [(base + file, posixpath.relpath(folder_of(file), "/")) for file in files]
    wanted = "no transcript of a known layout" if name == AUTO else f"no file of the layout {name}"
    raise ValueError(f"{uri} is a folder with {wanted}: set data.transcript or data.layout")


def _files(layout: Layout, paths: Sequence[str]) -> list[str]:
    """Return the files of the first pattern that finds any."""
    for pattern in layout.files:
        if found := [path for path in paths if re.search(pattern, path)]:
            return found
    return []
