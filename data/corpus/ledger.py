"""The ledger: every line of a transcript ends as kept, or as rejected with a reason.

Nothing is dropped in silence: `kept + rejected == lines`, always. Past a share of rejects the run
is refused.
"""

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from data.files import below, put_file
from data.quality.book import Book
from data.rejected import Reason

N = TypeVar("N")
SPEAKERS_SHOWN = 20
NAME_SHOWN = 24  # characters
UNREAD_SHOWN = 10  # characters that no rule reads, in the table
EXAMPLES_SHOWN = 5  # rejected lines in the message that refuses a transcript


class TooManyRejectsError(ValueError):
    """More lines were rejected than the configuration allows."""


@dataclass(frozen=True)
class Reject:
    """A rejected line.

    Attributes:
        source: transcript that it stands in.
        number: number of the line, from 1.
        reason: code of the reason.
        detail: what was seen.
        line: the line as written (bytes that are not UTF-8 as \\xNN).
        speaker: speaker as written, "" if the line could not be split.
        language: language as written, likewise.
    """

    source: str
    number: int
    reason: Reason
    detail: str
    line: str
    speaker: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class UnreadLine:
    """A line with characters that no rule read, in order."""

    source: str
    number: int
    text: str
    unread: str


def count_characters(text: str) -> int:
    """Return how many characters a text has, spaces aside: they are read, or unread."""
    return sum(not char.isspace() for char in text)


class Ledger:
    """The books of one run of the preparation; a kept line takes 8 bytes.

    Args:
        transcript: file, URI or glob of the lines, as messages name it.
        lines: number of lines that were read, without blank ones.

    Attributes:
        kept: seconds of each line that is kept.
        rejects: the rejected lines.
        quality: what the recordings' measures tell.
    """

    def __init__(self, transcript: str, lines: int) -> None:
        self.transcript = transcript
        self.lines = lines
        self.kept = array("d")
        self._groups = {"language": _Groups[str](), "speaker": _Groups[str]()}
        self._pairs = _Groups[tuple[str, str]]()
        self.rejects: list[Reject] = []
        self.quality = Book()
        self.characters = 0  # of the texts that were read
        self.unread: list[UnreadLine] = []

    def keep(self, speaker: str, language: str, seconds: float) -> None:
        """Book a line as kept; `seconds` is the length of its recording."""
        self.kept.append(seconds)
        self._groups["language"].add(language, seconds)
        self._groups["speaker"].add(speaker, seconds)
        self._pairs.add((speaker, language), seconds)

    @property
    def pairs(self) -> dict[tuple[str, str], float]:
        """Seconds kept of each speaker in each language."""
        return dict(self._pairs.seconds)

    def reject(self, rejects: Iterable[Reject]) -> None:
        """Book lines as rejected."""
        self.rejects.extend(rejects)

    def book_text(self, source: str, number: int, text: str, unread: str) -> None:
        """Book the characters of a line's text, and those among them that no rule read."""
        self.characters += count_characters(text)
        if unread:
            self.unread.append(UnreadLine(source, number, text, unread))

    def unread_characters(self) -> Counter[str]:
        """Return how often each character was not read."""
        return Counter(char for line in self.unread for char in line.unread)

    @property
    def hours(self) -> float:
        """Hours of audio that were kept."""
        return sum(self.kept) / 3600

    @property
    def languages(self) -> list[str]:
        """Languages of the lines that are kept, sorted."""
        return sorted(self._groups["language"].kept)

    def reasons(self) -> dict[str, int]:
        """Return how many lines were rejected by reason, the most frequent reason first."""
        counts = Counter(reject.reason.value for reject in self.rejects)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def counts(self) -> dict:
        """Return the balance, for the manifest's header."""
        counts: dict = {
            "lines": self.lines,
            "kept": len(self.kept),
            "rejected": dict(sorted(self.reasons().items())),
        }
        if self.unread:
            counts["characters"] = self.characters
            counts["unread"] = self.unread_characters().total()
        return counts

    def table(self) -> str:
        """Return the balance for a terminal: by reason, by language and by speaker."""
        kept = f"{len(self.kept)} kept ({self.hours:.2f} h)"
        rows = [f"{self.lines} lines, {kept}, {len(self.rejects)} rejected"]
        rows += [f"  rejected {reason:<18}{count:>8}" for reason, count in self.reasons().items()]
        if self.unread:
            rows.append(self._unread_line())
        rows += self.quality.rows()

        rows += [_group_line("language", *group) for group in self.by("language")]
        speakers = self.by("speaker")
        rows += [_group_line("speaker", *group) for group in speakers[:SPEAKERS_SHOWN]]
        if len(speakers) > SPEAKERS_SHOWN:
            rows.append(f"  and {len(speakers) - SPEAKERS_SHOWN} speakers with fewer lines")
        return "\n".join(rows)

    def _unread_line(self) -> str:
        characters = self.unread_characters()
        listed = characters.most_common(UNREAD_SHOWN)
        shown = ", ".join(f"{_shown(char)} {count}" for char, count in listed)
        return (
            f"  no rule reads {characters.total()} of {self.characters} characters, in "
            f"{len(self.unread)} lines (unread.jsonl): {shown}"
        )

    def by(self, attribute: Literal["language", "speaker"]) -> list[tuple[str, int, float, int]]:
        """Return groups of lines, the largest first.

        Returns:
            Per group its name (`?` for lines that could not be split), kept lines, seconds kept and
            rejected lines.
        """
        kept, seconds = self._groups[attribute].kept, self._groups[attribute].seconds
        rejected = Counter[str]()
        for reject in self.rejects:
            rejected[getattr(reject, attribute) or "?"] += 1

        names = sorted(kept.keys() | rejected.keys())
        names.sort(key=lambda name: -kept[name] - rejected[name])
        return [(name, kept[name], seconds.get(name, 0.0), rejected[name]) for name in names]

    def ordered_rejects(self) -> list[Reject]:
        """Return the rejected lines in the transcripts' order."""
        return sorted(self.rejects, key=lambda reject: (reject.source, reject.number))

    def save_unread(self, uri: str) -> None:
        """Write the lines with unread characters, one JSON object each, in the transcripts' order.

        Args:
            uri: file or URI to write.
        """
        ordered = sorted(self.unread, key=lambda line: (line.source, line.number))
        lines = [
            {
                "file": line.source,
                "line": line.number,
                "unread": line.unread,
                "share": round(len(line.unread) / count_characters(line.text), 4),
                "text": line.text,
            }
            for line in ordered
        ]
        content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        put_file(uri, content.encode(errors="backslashreplace"))

    def save(self, uri: str) -> None:
        """Write the rejected lines, one JSON object per line, in the transcripts' order.

        Args:
            uri: file or URI to write.
        """
        lines = [
            json.dumps(
                {
                    "file": reject.source,
                    "line": reject.number,
                    "reason": reject.reason,
                    "detail": reject.detail,
                    "speaker": reject.speaker,
                    "language": reject.language,
                    "text": reject.line,
                },
                ensure_ascii=False,
            )
            for reject in self.ordered_rejects()
        ]
        content = "".join(line + "\n" for line in lines)
        # transcripts may hold half surrogate pairs, which are no UTF-8
        put_file(uri, content.encode(errors="backslashreplace"))

    def check(self, max_share: float, shards: str) -> None:
        """Refuse what the configuration does not allow.

        Args:
            max_share: greatest share of rejected lines, `data.max_reject_share`.
            shards: folder or URI in which the rejected lines are listed.

        Raises:
            TooManyRejectsError: the share is exceeded, or nothing was kept.
        """
        assert len(self.kept) + len(self.rejects) == self.lines, (
            "a line is neither kept nor rejected, or is both"
        )
        if not self.lines:
            raise TooManyRejectsError(f"{self.transcript} has no lines: set data.transcript")
        share = len(self.rejects) / self.lines
        if self.kept and share <= max_share:
            return
        raise TooManyRejectsError(
            f"{len(self.rejects)} of {self.lines} lines were rejected ({share:.1%}; "
            f"data.max_reject_share allows {max_share:.1%}, and at least one line must be kept). "
            f"Fix the lines, or raise the share; {below(shards, 'rejects.jsonl')} and report.html "
            f"beside it list them:{self._examples()}"
        )

    def _examples(self) -> str:
        """Return the most frequent reasons, each with the first line that was rejected for it."""
        first: dict[str, Reject] = {}
        for reject in self.ordered_rejects():
            first.setdefault(reject.reason, reject)

        lines = []
        for reason, count in list(self.reasons().items())[:EXAMPLES_SHOWN]:
            example = first[reason]
            place = f"{example.source}:{example.number}"
            lines.append(f"\n  {count} x {reason}, first at {place}: {example.detail}")
        return "".join(lines)


def _shown(char: str) -> str:
    return char if char.isprintable() else f"U+{ord(char):04X}"


class _Groups(Generic[N]):
    """Lines that are kept by name: how many, and how long."""

    def __init__(self) -> None:
        self.kept = Counter[N]()
        self.seconds = defaultdict[N, float](float)

    def add(self, name: N, seconds: float) -> None:
        """Count a line."""
        self.kept[name] += 1
        self.seconds[name] += seconds


def _group_line(what: str, name: str, kept: int, seconds: float, rejected: int) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name)[:NAME_SHOWN]
    hours = seconds / 3600
    return f"  {what:<9}{shown:<24}{kept:>8} kept{hours:>10.3f} h{rejected:>8} rejected"
