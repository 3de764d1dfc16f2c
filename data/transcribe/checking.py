"""Compares a transcript with what a recogniser hears: errors per line, and swapped lines."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from data.config import DataConfig
from data.corpus.tables.lines import TranscriptLine
from data.corpus.transcript import Transcript
from data.files import below, put_file
from data.text.front_end import FrontEnd, FrontEndError, get_front_end
from data.text.languages import find, units
from data.transcribe.work import Done

CHECKED = "checked.jsonl"
TRANSCRIPT = "transcript.jsonl"
MOST_COMPARED = 2000  # suspicious lines that are compared with each other
SHOWN = 50


@dataclass(frozen=True)
class Checked:
    """A line, and what is heard in its recording.

    Attributes:
        line: the line.
        heard: text.
        error: errors per character or word, as the language counts them; 0 is none.
        confidence: of the recogniser; None: it does not tell.
        problem: why nothing was heard; "" if it was.
    """

    line: TranscriptLine
    heard: str
    error: float
    confidence: float | None
    problem: str = ""

    @property
    def place(self) -> str:
        """Where the line stands."""
        return f"{self.line.source}:{self.line.number}"


class Comparison:
    """Counts what a recogniser heard otherwise than a text says.

    Args:
        cfg: how texts are read: numbers are compared as they are spoken.
    """

    def __init__(self, cfg: DataConfig) -> None:
        self.front_end = functools.cache(functools.partial(_front_end, cfg))

    def error(self, said: str, heard: str, language: str) -> float:
        """Return errors (edits) per character or word of a text; 1 is as many as it has.

        Args:
            said: the text.
            heard: what was recognised.
            language: code of its language, which decides what is counted.
        """
        if units(said, language) == units(heard, language):
            return 0.0
        return _error(self.spoken(said, language), self.spoken(heard, language))

    def spoken(self, text: str, language: str) -> list[str]:
        """Return a text's units, numbers written out."""
        try:
            return units(self.front_end(language)(text).norm_text, language)
        except FrontEndError:
            return units(text, language)


def _error(said: Sequence[str], heard: Sequence[str]) -> float:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(said, heard) / max(len(said), 1)


def _front_end(cfg: DataConfig, language: str) -> FrontEnd:
    # without BERT's tokenizer, which only decides how words are cut
    options = {option: attrgetter(key)(cfg) for option, key in find(language).settings}
    return get_front_end(language, **options)


def check_lines(transcript: Transcript, done: Done, cfg: DataConfig) -> list[Checked]:
    """Compare the lines of a transcript with what was heard, in the transcript's order."""
    comparison = Comparison(cfg)
    return [_checked(line, done, comparison) for line in transcript.lines]


def _checked(line: TranscriptLine, done: Done, comparison: Comparison) -> Checked:
    heard = done.heard[line.uri][0]
    if heard["problem"] is not None:
        return Checked(line, "", 1.0, None, ": ".join(heard["problem"]))
    error = comparison.error(line.text, heard["text"], line.language)
    return Checked(line, heard["text"], error, heard["confidence"])


@dataclass(frozen=True)
class Suspects:
    """The lines that are not what is heard.

    Attributes:
        lines: the worst first.
        fits: place of such a line -> another one whose text is heard in its recording.
    """

    lines: Sequence[Checked]
    fits: Mapping[str, Checked]


def suspects(checked: Sequence[Checked], cfg: DataConfig) -> Suspects:
    """Return the lines that are not what is heard, by `data.quality.max_text_error`."""
    limit = cfg.quality.max_text_error
    found = [each for each in checked if each.problem or each.error > limit]
    found.sort(key=lambda each: (-each.error, each.line.source, each.line.number))
    return Suspects(found, _fitting(found, limit, cfg))


def _fitting(found: Sequence[Checked], max_error: float, cfg: DataConfig) -> dict[str, Checked]:
    """Return place of a suspicious line -> another one whose text is heard in its recording."""
    comparison = Comparison(cfg)
    few = [each for each in found if not each.problem][:MOST_COMPARED]
    said = [comparison.spoken(each.line.text, each.line.language) for each in few]
    fits = {}
    for each in few:
        heard = comparison.spoken(each.heard, each.line.language)
        errors = [_error(text, heard) for text in said]
        best = min(range(len(few)), key=errors.__getitem__)
        if few[best] is not each and errors[best] <= max_error:
            fits[each.place] = few[best]
    return fits


def report(transcript: Transcript, found: Suspects, max_error: float) -> str:
    """Return what a terminal is told: the lines that are not what is heard."""
    bad = len(found.lines)
    told = [
        f"{transcript.count} lines: {len(transcript.lines) - bad} are what is heard, {bad} "
        f"are not (data.quality.max_text_error {max_error:g}), {len(transcript.rejects)} cannot "
        "be used"
    ]
    told += [_line(each, found.fits.get(each.place)) for each in found.lines[:SHOWN]]
    if bad > SHOWN:
        told.append(f"  and {bad - SHOWN} more in {CHECKED}")
    told += [
        f"  {each.source}:{each.number}: {each.reason}: {each.detail}"
        for each in transcript.rejects[:SHOWN]
    ]
    return "\n".join(told)


def _line(each: Checked, fit: Checked | None) -> str:
    if each.problem:
        return f"  {each.place}: {each.problem}"
    unit = find(each.line.language).error_unit.removesuffix("s")
    told = (
        f"  {each.place}: {each.error:.2f} errors per {unit}: says {each.line.text!r}, heard is "
        f"{each.heard!r}"
    )
    return f"{told}, the text of {fit.place}" if fit else told


def save(out: str, transcript: Transcript, checked: Sequence[Checked], found: Suspects) -> None:
    """Write every line with its error, and a transcript of those that are what is heard."""
    bad = {each.place for each in found.lines}
    rows: list[dict[str, Any]] = [_row(each, each.place in bad, found.fits) for each in checked]
    rows += [
        {"file": each.source, "line": each.number, "problem": f"{each.reason}: {each.detail}"}
        for each in transcript.rejects
    ]
    put_file(below(out, CHECKED), _lines(rows))
    put_file(below(out, TRANSCRIPT), _lines(_kept(checked, bad)))


def _row(each: Checked, is_bad: bool, fits: Mapping[str, Checked]) -> dict[str, Any]:
    fit = fits.get(each.place)
    return {
        "file": each.line.source,
        "line": each.line.number,
        "path": each.line.uri,
        "error": round(each.error, 4),
        "suspicious": is_bad,
        "says": each.line.text,
        "heard": each.heard,
        "confidence": each.confidence and round(each.confidence, 4),
        "fits": fit and fit.place,
        "problem": each.problem or None,
    }


def _kept(checked: Sequence[Checked], bad: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a transcript of the lines that are not among the bad ones."""
    for line in (each.line for each in checked if each.place not in bad):
        row = {
            "path": line.uri,
            "speaker": line.speaker,
            "language": line.language,
            "text": line.text,
            "id": line.id,
        }
        yield row | ({"split": line.split} if line.split else {})


def _lines(rows: Any) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
