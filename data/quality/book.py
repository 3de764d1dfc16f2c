"""The books of the quality gate: lines beyond a threshold, voices, and the lines to listen to."""

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data.files import put_parts
from data.quality.gate import Finding


@dataclass(frozen=True)
class Flagged:
    """A line to look at.

    Attributes:
        source: transcript that it stands in.
        number: number of the line, from 1.
        uri: its recording.
        speaker: name of the speaker.
        text: what is said.
        findings: what is wrong with it; nothing, if it is one of the worst all the same.
        rejected: whether it is rejected for that.
        measures: what was measured.
    """

    source: str
    number: int
    uri: str
    speaker: str
    text: str
    findings: Sequence[Finding]
    rejected: bool
    measures: dict[str, float]

    def encoded(self) -> bytes:
        """Return it as a line of quality.jsonl."""
        row = {
            "file": self.source,
            "line": self.number,
            "kinds": [finding.kind for finding in self.findings],
            "details": [finding.detail for finding in self.findings],
            "rejected": self.rejected,
            **self.measures,
            "speaker": self.speaker,
            "path": self.uri,
            "text": self.text,
        }
        return f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors="backslashreplace")


@dataclass
class Lines:
    """Lines that have a kind of finding.

    Attributes:
        first: source and number of the first one.
        detail: what is wrong with that.
        count: how many there are.
        rejected: how many of them are rejected.
    """

    first: tuple[str, int]
    detail: str
    count: int = 0
    rejected: int = 0

    def add(self, place: tuple[str, int], detail: str, rejected: bool) -> None:
        """Count a line."""
        if place < self.first:
            self.first, self.detail = place, detail
        self.count += 1
        self.rejected += rejected


@dataclass(frozen=True)
class Voice:
    """A speaker's lines.

    Attributes:
        lines: lines that were kept.
        measured: lines of these that were measured.
        measures: name of a measure -> median of the measured lines.
        findings: kind -> lines that have it.
    """

    lines: int
    measured: int
    measures: dict[str, float]
    findings: dict[str, int]


@dataclass
class Book:
    """What the gate found. Lines with findings are in a temporary file: there may be many.

    Attributes:
        worst: lines to listen to first, the worst first.
        voices: speaker -> what is known of their lines.
        unmeasured: lines that were kept and never measured, as older code prepared them.
        kinds: kind -> lines that have it.
        of_speakers: speaker -> kind -> number of lines.
    """

    worst: list[Flagged] = field(default_factory=list)
    voices: dict[str, Voice] = field(default_factory=dict)
    unmeasured: int = 0
    kinds: dict[str, Lines] = field(default_factory=dict)
    of_speakers: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin without lines."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # goes with this object
        self._sources: dict[str, int] = {}
        # of each line: its source, its number, and where it ends in the file
        self._source, self._number, self._end = array("i"), array("q"), array("q")

    def flag(self, line: Flagged) -> None:
        """Book a line with findings, kept or rejected."""
        place = line.source, line.number
        of_speaker = self.of_speakers.setdefault(line.speaker, Counter())
        for finding in line.findings:
            first = Lines(place, finding.detail)
            self.kinds.setdefault(finding.kind, first).add(place, finding.detail, line.rejected)
            of_speaker[finding.kind] += 1
        self._file.write(line.encoded())
        self._source.append(self._sources.setdefault(line.source, len(self._sources)))
        self._number.append(line.number)
        self._end.append(self._file.tell())

    def rows(self) -> list[str]:
        """Return a line for each kind, for a terminal: how many, where first, where all are."""
        rows = []
        for kind, lines in sorted(self.kinds.items(), key=lambda item: (-item[1].count, item[0])):
            done = f", {lines.rejected} of them rejected" if lines.rejected else ""
            source, number = lines.first
            rows.append(
                f"  quality  {kind:<18}{lines.count:>8} lines{done} (quality.jsonl, report.html), "
                f"first {source}:{number}: {lines.detail}"
            )
        if self.unmeasured:
            rows.append(
                f"  quality  not measured      {self.unmeasured:>8} lines, in shards of older code "
                "(another data.shards measures them)"
            )
        return rows

    def save(self, uri: str) -> None:
        """Write the lines with findings, one JSON object each, in the transcripts' order.

        Args:
            uri: file or URI to write.
        """
        put_parts(uri, self._ordered())

    def _ordered(self) -> Iterator[bytes]:
        """Yield the lines with findings by source and number."""
        rank = {source: place for place, source in enumerate(sorted(self._sources))}
        ranks = np.array([rank[source] for source in self._sources], np.int32)
        ends = np.array(self._end, np.int64)
        sources, numbers = np.array(self._source, np.int32), np.array(self._number, np.int64)
        for line in np.lexsort((numbers, ranks[sources])).tolist():
            begin = int(ends[line - 1]) if line else 0
            self._file.seek(begin)
            yield self._file.read(int(ends[line]) - begin)
