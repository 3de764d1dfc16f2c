"""Files of texts to be spoken: one per line, plain or as a JSON object."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from data.files import read_file, stays_below
from job.voice.voice import SpeechRequest

LONGEST_ID = 240  # bytes; file systems take 255 with the suffix
# keys of a line's JSON object, beside `id`: the fields of SpeechRequest
KEYS: dict[str, type] = {
    **dict.fromkeys(("text", "speaker", "language"), str),
    **dict.fromkeys(("sdp_ratio", "noise_scale", "noise_scale_w", "length_scale"), float),
    "seed": int,
}


@dataclass(frozen=True)
class Line:
    """A line of a file that is to be spoken.

    Attributes:
        number: number of the line in the file, from 1.
        id: name of its recording, without suffix.
        request: what to say, and how.
    """

    number: int
    id: str
    request: SpeechRequest


def read_lines(path: str, default: SpeechRequest) -> tuple[list[Line], dict[int, str]]:
    """Read a file of texts, UTF-8, one per line; blank lines are left out.

    Args:
        path: file or URI.
        default: the fields that a line does not give.

    Returns:
        The lines; and for each other line, number -> what is wrong with it.

    Raises:
        ValueError: the file is not UTF-8.
        OSError: it cannot be read.
    """
    content = read_file(path)
    try:
        rows = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{number} is not UTF-8 ({error.reason}): save the file as UTF-8"
        ) from error

    lines: dict[str, Line] = {}
    mistakes: dict[int, str] = {}
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            line = read_line(number, row.strip(), default)
            if line.id in lines:
                taken = lines[line.id].number
                raise ValueError(f"the id {line.id!r} is that of line {taken}: give another one")
        except ValueError as error:
            mistakes[number] = str(error)
        else:
            lines[line.id] = line
    return list(lines.values()), mistakes


def read_line(number: int, row: str, default: SpeechRequest) -> Line:
    """Read one line: a text, or a JSON object of `id` and the fields of SpeechRequest.

    Args:
        number: number of the line, from which it has its id if it gives none.
        row: content of the line.
        default: the fields that the line does not give.

    Raises:
        ValueError: a JSON object with an unknown key or an impossible value.
    """
    unnamed = f"{number:05}"
    if not row.startswith("{"):
        return Line(number, unnamed, replace(default, text=row))

    try:
        given = json.loads(row)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply: give one object of texts") from error
    own = given.pop("id", unnamed)
    if not isinstance(own, str) or "/" in own or not stays_below(own):
        raise ValueError(f"id is {own!r}: give the name of a file, without folder and suffix")
    if len(own.encode()) > LONGEST_ID:
        raise ValueError(f"id has more than {LONGEST_ID} bytes: choose a shorter one")
    return Line(number, own, request_of(given, default))


def request_of(given: Mapping[str, object], default: SpeechRequest) -> SpeechRequest:
    """Return the request of a JSON object.

    Args:
        given: its keys are fields of SpeechRequest, `text` among them.
        default: the fields that it does not give.

    Raises:
        ValueError: an unknown key or an impossible value.
    """
    if "text" not in given:
        raise ValueError("it has no text")
    for key, value in given.items():
        _check_type(key, value)
    return replace(default, **given)  # type: ignore[arg-type]  # types are checked above


def _check_type(key: str, value: object) -> None:
    """Refuse unknown keys, and values of another type than the field's."""
    if key not in KEYS:
        raise ValueError(f"unknown key {key!r}; known are id, {', '.join(KEYS)}")
    wanted = (int, float) if KEYS[key] is float else KEYS[key]
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"{key} is {json.dumps(value)}, but must be of type {KEYS[key].__name__}")
