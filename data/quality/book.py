"""The books of the quality gate: lines beyond a threshold, voices, and the lines to listen to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from data.files import put_file
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
    """What the gate found.

    Attributes:
        flagged: lines with findings, kept or rejected, in the transcript's order.
        worst: lines to listen to first, the worst first.
        voices: speaker -> what is known of their lines.
        unmeasured: lines that were kept and never measured, as older code prepared them.
    """

    flagged: list[Flagged] = field(default_factory=list)
    worst: list[Flagged] = field(default_factory=list)
    voices: dict[str, Voice] = field(default_factory=dict)
    unmeasured: int = 0

    def count(self) -> dict[str, list[Flagged]]:
        """Return kind -> lines that have it, the most frequent kind first."""
        found: dict[str, list[Flagged]] = {}
        for line in self.flagged:
            for finding in line.findings:
                found.setdefault(finding.kind, []).append(line)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    def rows(self) -> list[str]:
        """Return a line for each kind, for a terminal: how many, where first, where all are."""
        rows = []
        for kind, lines in self.count().items():
            first = min(lines, key=lambda line: (line.source, line.number))
            detail = next(f.detail for f in first.findings if f.kind == kind)
            rejected = sum(line.rejected for line in lines)
            done = f", {rejected} of them rejected" if rejected else ""
            rows.append(
                f"  quality  {kind:<18}{len(lines):>8} lines{done} (quality.jsonl, report.html), "
                f"first {first.source}:{first.number}: {detail}"
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
        ordered = sorted(self.flagged, key=lambda line: (line.source, line.number))
        lines = [
            {
                "file": line.source,
                "line": line.number,
                "kinds": [finding.kind for finding in line.findings],
                "details": [finding.detail for finding in line.findings],
                "rejected": line.rejected,
                **line.measures,
                "speaker": line.speaker,
                "path": line.uri,
                "text": line.text,
            }
            for line in ordered
        ]
        content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        put_file(uri, content.encode(errors="backslashreplace"))
