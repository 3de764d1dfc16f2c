"""The ledger: every line of a transcript ends as kept, or as rejected with a reason.

Nothing is dropped in silence: `kept + rejected == lines`, always. Past a share of rejects the run
is refused.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from data.files import put_file

SPEAKERS_SHOWN = 20
NAME_SHOWN = 24  # characters


class Reason(StrEnum):
    """Why a line was rejected. The values are the codes in rejects.jsonl and in the manifest's header."""

    # not UTF-8 or JSON, fewer than four fields, or a field is empty or no text
    MALFORMED_LINE = "malformed_line"
    PATH_LEAVES_ROOT = "path_leaves_root"  # a relative path that leads out of data.audio_root
    DUPLICATE_ID = "duplicate_id"  # an earlier line has the same id
    UNKNOWN_LANGUAGE = "unknown_language"  # not one of data.config.LANGUAGES
    UNKNOWN_SPLIT = "unknown_split"  # not one of data.shards.manifest.SPLITS
    # nothing to say, as written or after normalising; punctuation says nothing
    EMPTY_TEXT = "empty_text"
    TEXT_TOO_LONG = "text_too_long"  # more tokens than BERT reads at once
    UNKNOWN_SYMBOL = "unknown_symbol"  # the front end gave a phone that the symbol set lacks
    UNKNOWN_TONE = "unknown_tone"  # the front end gave a tone that the language lacks
    WORD2PH_MISMATCH = "word2ph_mismatch"  # phones, tones and word2ph do not fit together
    BERT_TOKEN_MISMATCH = "bert_token_mismatch"  # word2ph and BERT's tokens do not fit together
    MISSING_AUDIO = "missing_audio"  # there is no such file
    UNREADABLE_AUDIO = "unreadable_audio"  # no audio that can be decoded, or it may not be read
    NOT_FINITE = "not_finite"  # NaN or infinite samples
    SILENT = "silent"  # never louder than data.audio.recording.SILENCE_PEAK
    TOO_SHORT = "too_short"  # below data.min_seconds
    TOO_LONG = "too_long"  # above data.max_seconds
    TOO_MANY_PHONES = "too_many_phones"  # more phones than frames: they cannot be aligned


class RejectedError(ValueError):
    """A line that cannot be used; `reason` is its code, the message says what was seen."""

    def __init__(self, reason: Reason, detail: str) -> None:
        # all arguments: exceptions are pickled on their way from a worker
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class TooManyRejectsError(ValueError):
    """More lines were rejected than the configuration allows."""


@dataclass(frozen=True)
class Reject:
    """A rejected line.

    Attributes:
        source: the transcript.
        number: its line, from 1.
        reason: its code.
        detail: what was seen.
        line: the line as written (bytes that are not UTF-8 as \\xNN).
        speaker: as written, where the line could be split; likewise `language`.
        language: as written.
    """

    source: str
    number: int
    reason: Reason
    detail: str
    line: str
    speaker: str = ""
    language: str = ""


@dataclass(frozen=True)
class Kept:
    """What the ledger counts of a line that is kept."""

    speaker: str
    language: str
    seconds: float


class Ledger:
    """Counts of one run of the preparation.

    Args:
        transcript: file, URI or glob of the lines, as messages name it.
        lines: lines read; blank ones are no lines.
    """

    def __init__(self, transcript: str, lines: int) -> None:
        self.transcript = transcript
        self.lines = lines
        self.kept: list[Kept] = []
        self.rejects: list[Reject] = []

    def keep(self, speaker: str, language: str, seconds: float) -> None:
        """Book a line as kept."""
        self.kept.append(Kept(speaker, language, seconds))

    def reject(self, rejects: Iterable[Reject]) -> None:
        """Book lines as rejected."""
        self.rejects.extend(rejects)

    @property
    def hours(self) -> float:
        """Length of what was kept."""
        return sum(kept.seconds for kept in self.kept) / 3600

    def reasons(self) -> dict[str, int]:
        """Rejected lines by reason, the most frequent first."""
        counts = Counter(reject.reason.value for reject in self.rejects)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def counts(self) -> dict:
        """The balance, for the manifest's header."""
        return {
            "lines": self.lines,
            "kept": len(self.kept),
            "rejected": dict(sorted(self.reasons().items())),
        }

    def table(self) -> str:
        """The balance, for a terminal: rejects by reason, then kept and rejected lines by language and by speaker."""
        rows = [
            f"{self.lines} lines, {len(self.kept)} kept ({self.hours:.2f} h), {len(self.rejects)} rejected"
        ]
        rows += [f"  rejected {reason:<18}{count:>8}" for reason, count in self.reasons().items()]
        speakers = self.by("speaker")
        for what, groups in (
            ("language", self.by("language")),
            ("speaker", speakers[:SPEAKERS_SHOWN]),
        ):
            for name, kept, seconds, rejected in groups:
                shown = "".join(char if char.isprintable() else "?" for char in name)[:NAME_SHOWN]
                rows.append(
                    f"  {what:<9}{shown:<24}{kept:>8} kept{seconds / 3600:>10.3f} h{rejected:>8} rejected"
                )
        if len(speakers) > SPEAKERS_SHOWN:
            rows.append(f"  and {len(speakers) - SPEAKERS_SHOWN} speakers with fewer lines")
        return "\n".join(rows)

    def by(self, attribute: Literal["language", "speaker"]) -> list[tuple[str, int, float, int]]:
        """Groups of lines, the largest first: name, kept lines, seconds kept, rejected lines.

        Lines that could not be split have the name `?`.
        """
        groups: dict[str, list] = {}
        for kept in self.kept:
            group = groups.setdefault(getattr(kept, attribute), [0, 0.0, 0])
            group[0] += 1
            group[1] += kept.seconds
        for reject in self.rejects:
            groups.setdefault(getattr(reject, attribute) or "?", [0, 0.0, 0])[2] += 1
        return sorted(
            ((name, kept, seconds, rejected) for name, (kept, seconds, rejected) in groups.items()),
            key=lambda group: (-group[1] - group[3], group[0]),
        )

    def ordered_rejects(self) -> list[Reject]:
        """The rejects in the transcripts' order."""
        return sorted(self.rejects, key=lambda reject: (reject.source, reject.number))

    def save(self, uri: str) -> None:
        """Write the rejects, a JSON object a line in the transcripts' order.

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
        put_file(uri, "".join(line + "\n" for line in lines).encode(errors="backslashreplace"))

    def check(self, max_share: float) -> None:
        """Refuse what the configuration does not allow.

        Args:
            max_share: greatest share of rejected lines, `data.max_reject_share`.

        Raises:
            TooManyRejectsError: the share is passed, or nothing was kept.
        """
        assert len(self.kept) + len(self.rejects) == self.lines, (
            "a line is neither kept nor rejected, or is both"
        )
        if not self.lines:
            raise TooManyRejectsError(f"{self.transcript} has no lines: set data.transcript")
        share = len(self.rejects) / self.lines
        if self.kept and share <= max_share:
            return
        first: dict[str, Reject] = {}
        for reject in self.ordered_rejects():
            first.setdefault(reject.reason, reject)
        examples = "".join(
            f"\n  {count} x {reason}, first at {first[reason].source}:{first[reason].number}: {first[reason].detail}"
            for reason, count in list(self.reasons().items())[:5]
        )
        raise TooManyRejectsError(
            f"{len(self.rejects)} of {self.lines} lines were rejected ({share:.1%}; data.max_reject_share allows "
            f"{max_share:.1%}, and at least one line must be kept). Mend the lines, or raise the share:{examples}"
        )
