"""The rows of a transcript's file, of whatever encoding, line ends and layout."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from data.layouts.encoding import narrow_encoding, wide_encoding
from data.layouts.layout import FIELDS, Layout, columns_of
from data.layouts.parquet import parquet_rows
from data.text.languages import code_of

_FEED = re.compile(rb"\n")
_RETURN_OR_FEED = re.compile(rb"\r{1,3}\n|\n|\r")
_RARE_ENDS = (
    *(b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85"),
    *(bytes([sign]) for sign in b"\x0b\x0c\x1c\x1d\x1e"),
)
# the separators of Unicode and of old devices: only where a line follows, as texts may hold some
_ANY_LINE_END = re.compile(
    rb"\r{1,3}\n|\n|\r"
    rb"|(?:\xe2\x80[\xa8\xa9]|\xc2\x85|[\x0b\x0c\x1c-\x1e])(?=(?:[^|\r\n]*\|){3})"
)
_BEGUN = re.compile(rb"[|{]")
_LEADING_MARKS = re.compile(rb"^(?:\xef\xbb\xbf)+")
NOT_UTF_8 = "not UTF-8"  # begins what is said of a line in another encoding


Row = tuple[int, str, dict[str, Any] | str]
"""Number of a line, the line as written, and its fields, or what is wrong with it."""
Split = Callable[[str], dict[str, Any] | str]
FIRST_LINES, FIRST_BYTES = 50, 1 << 16  # tell what a file's lines are


def rows_of(source: str, content: bytes, layout: Layout) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        source: where it lies; its name tells whether it holds JSON or Parquet.
        content: the whole file.
        layout: what it is read as.

    Raises:
        ValueError: the file is not readable Parquet or lacks a column, or is UTF-16 or UTF-32.
    """
    if source.endswith(".parquet"):
        yield from parquet_rows(source, content, layout)
        return
    if wide := wide_encoding(content):
        raise ValueError(f"{source}:1: {NOT_UTF_8}, it seems to be {wide}: save the file as UTF-8")
    if layout.form == "text":
        content = b" ".join(content.split())
    lines = _numbered(source, content)
    if layout.form == "table" and not source.endswith(".jsonl"):
        _, header, _ = next(lines, (0, "", None))
        split = _split_cells(source, header)
    else:
        split = _splitter(source, content, layout)
    for number, raw, fault in lines:
        yield number, raw, fault or split(raw)


def first_lines(source: str, content: bytes) -> list[str]:
    """Return the first lines of a file that are not blank."""
    head = content[:FIRST_BYTES]
    if len(content) > FIRST_BYTES:
        head = head[: head.rfind(b"\n") + 1]  # the last line may be cut
    return [raw for _, raw, _ in islice(_numbered(source, head), FIRST_LINES)]


def _numbered(source: str, content: bytes) -> Iterator[tuple[int, str, str | None]]:
    """Yield number and text of each line that is not blank, and what is wrong with its encoding."""
    # bytes, as a file that is not all UTF-8 still has lines
    ends = _line_ends(content, source.endswith(".jsonl"))
    foreign = _foreign(content, ends)
    for number, encoded in enumerate(_lines(content, ends), start=1):
        if encoded.strip():
            raw = encoded.decode("utf-8", errors="backslashreplace")
            yield number, raw, foreign.get(number)


def _splitter(source: str, content: bytes, layout: Layout) -> Split:
    """Return what makes fields of a line."""
    if source.endswith(".jsonl"):
        return _split_object if layout.form == "table" else _split_json
    if layout.form == "text":
        return lambda raw: {"text": raw}
    if not layout.patterns:
        return _split_line
    head = first_lines(source, content)
    pattern = max(layout.patterns, key=lambda each: matching(each, head))

    def split(raw: str) -> dict[str, Any] | str:
        found = re.fullmatch(pattern, raw.strip())
        if found is None:
            return f"no line of the layout {layout.name}: {layout.what}"
        fields = {name: value for name, value in found.groupdict().items() if value}
        return {"text": fields.get("written", ""), **fields}

    return split


def matching(pattern: str, lines: Sequence[str]) -> int:
    """Return how many lines have a pattern, and no field that names a language."""
    found = (re.fullmatch(pattern, line.strip()) for line in lines)
    fields = [list(filter(None, each.groups())) for each in found if each is not None]
    return sum(not any(map(code_of, each)) for each in fields)


def cells_of(source: str, line: str) -> list[str]:
    """Return the cells of a line of a table, whose name tells what is between them."""
    if source.endswith(".tsv"):
        return line.split("\t")
    return next(csv.reader([line]), [])


def _split_cells(source: str, header: str) -> Split:
    names = cells_of(source, header)
    columns = _needed(source, columns_of(names))

    def split(raw: str) -> dict[str, Any] | str:
        cells = cells_of(source, raw)
        if len(cells) != len(names):
            return f"{len(cells)} cells, the header has {len(names)}"
        row = dict(zip(names, cells, strict=True))
        return {field: row[column] for field, column in columns.items()}

    return split


def _needed(source: str, columns: dict[str, str]) -> dict[str, str]:
    """Return columns, if recordings and texts are among them.

    Raises:
        ValueError: names what is missing.
    """
    missing = [name for name in ("path", "text") if name not in columns]
    if missing:
        raise ValueError(f"the transcript {source} has no column {', '.join(missing)}")
    return columns


def _line_ends(content: bytes, is_json: bool) -> re.Pattern[bytes]:
    """Return what ends the lines of a file; the simplest pattern that does, which is fast."""
    if not is_json and any(end in content for end in _RARE_ENDS):
        return _ANY_LINE_END
    return _RETURN_OR_FEED if b"\r" in content else _FEED


def _lines(content: bytes, ends: re.Pattern[bytes]) -> Iterator[bytes]:
    """Yield a file's lines, of which memory never holds all.

    Byte order marks at their beginning are left out: joined files have some inside.
    """
    start = 0
    feeds = b"\n" in content
    for end in ends.finditer(content):
        # in a file of other ends it may be inside of a field, which is refused
        if end[0] == b"\r" and feeds and not _BEGUN.search(content, start, end.start()):
            continue
        yield _LEADING_MARKS.sub(b"", content[start : end.start()])
        start = end.end()
    yield _LEADING_MARKS.sub(b"", content[start:])


def _foreign(content: bytes, ends: re.Pattern[bytes]) -> dict[int, str]:
    """Return number -> what is wrong with it, for the lines that are not UTF-8."""
    faults: dict[int, str] = {}
    found = []
    for number, line in enumerate(_lines(content, ends), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            faults[number] = f"{error.reason} at byte {error.start}"
            found.append(line)
    if not faults:
        return {}
    # together, as few of them alone are long enough to tell
    encoding = narrow_encoding(b"\n".join(found))
    cure = f"it seems to be {encoding}: save the file as UTF-8"
    return {number: f"{NOT_UTF_8} ({fault}), {cure}" for number, fault in faults.items()}


def _split_line(raw: str) -> dict[str, Any] | str:
    parts = raw.split("|", 3)
    if len(parts) < 4:
        hint = "; if it is an LJSpeech list, set data.layout: ljspeech" if len(parts) == 3 else ""
        return f"{len(parts)} fields, expected path|speaker|language|text{hint}"
    if _is_cleaned(parts[3].split("|")):
        return (
            "a line with phones, tones and word2ph, of a list that the reference has cleaned: "
            "give the list that it was made from (esd.list)"
        )
    return dict(zip(FIELDS, parts, strict=True))


def _is_cleaned(fields: Sequence[str]) -> bool:
    """Tell whether a text is followed by phones, tones and word2ph, which fit each other."""
    if len(fields) != 4:
        return False
    phones, tones, word2ph = (field.split() for field in fields[1:])
    numbers = all(each.isdecimal() for each in tones + word2ph)
    return numbers and len(phones) == len(tones) == sum(map(int, word2ph)) > 0


def _split_json(raw: str) -> dict[str, Any] | str:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else "not a JSON object"


def object_of(raw: str) -> dict[str, Any]:
    """Return the fields of a line of JSON; none if it is no object."""
    row = _split_json(raw)
    return row if isinstance(row, dict) else {}


def _split_object(raw: str) -> dict[str, Any] | str:
    row = _split_json(raw)
    if isinstance(row, str):
        return row
    return {field: row[column] for field, column in columns_of(row).items()}
