"""The inspection of a corpus: each line is compared with the thresholds, and booked."""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data.config import DataConfig
from data.quality.book import Book, Flagged, Voice
from data.quality.gate import COPY, Finding, Gate
from data.rejected import Reason, RejectedError

if TYPE_CHECKING:
    from data.corpus.tables.lines import Lines, TranscriptLine

AT_A_TIME = 4096
WORST = 20  # lines to listen to
MOST_KEPT = 8 * WORST
SHOWN = ("clipped", "bandwidth", "snr", "silence", "level", "rate")
DIGITS = 4


class Inspection:
    """Inspects the lines of a transcript, one after the other.

    Args:
        cfg: the thresholds, and what is rejected.
        lines: all lines.
        measured: data.quality.measures.MEASURES of each, null where not measured.
        samples: int64 [lines].
        phones: int [lines].
    """

    def __init__(
        self,
        cfg: DataConfig,
        lines: "Lines",
        measured: pa.Table,
        samples: np.ndarray,
        phones: np.ndarray,
    ) -> None:
        self.lines = lines
        self.rejected = frozenset(cfg.quality.reject)
        self.speakers: dict[str, int] = {}
        self.speaker, voices = _voices(lines, self.speakers)
        self.gate = Gate(cfg.quality, cfg.sampling_rate, measured, samples, phones, voices)
        self._first: dict[int, TranscriptLine] = {}
        self._book = Book()
        self._bad: dict[int, Flagged] = {}
        self._score = self.gate.score
        self._turned_away = array("q")

    def check(self, number: int, line: "TranscriptLine") -> None:
        """Book a line.

        Args:
            number: number of the line, from 0; each is greater than the one before.
            line: the line.

        Raises:
            RejectedError: `data.quality.reject` names what is wrong with it.
        """
        findings = [*self.gate.findings(number), *self._copies(number, line)]
        if not findings:
            return
        bad = next((each for each in findings if each.kind in self.rejected), None)
        flagged = self._flagged(number, line, findings, bad is not None)
        self._book.flag(flagged)
        self._keep_if_bad(number, flagged)
        if bad:
            self._turned_away.append(number)
            raise RejectedError(Reason(bad.kind), bad.detail)

    def finish(self, kept: Sequence[int]) -> Book:
        """Return the books.

        Args:
            kept: the lines that are kept.
        """
        known = np.isfinite(self.gate.values["level"])
        chosen = np.array(kept, np.int64)
        self._book.unmeasured = int((~known[chosen]).sum())
        self._book.voices = self._voices(chosen, known)
        for number in self._worst(np.concatenate([chosen, self._turned_away])):
            plain = self._flagged(number, self.lines[number], [], rejected=False)
            self._book.worst.append(self._bad.get(number, plain))
        return self._book

    def _keep_if_bad(self, number: int, line: Flagged) -> None:
        """Keep a line that may be one of the worst."""
        self._bad[number] = line
        if len(self._bad) > MOST_KEPT:
            self._bad = {
                number: self._bad[number] for number in self._worst(np.array(list(self._bad)))
            }

    def _copies(self, number: int, line: "TranscriptLine") -> list[Finding]:
        """Return that a line sounds like an earlier one, if it does."""
        if not self.gate.alike[number]:
            return []  # few are, so that few lines are held
        first = self._first.setdefault(int(self.gate.first[number]), line)
        if first is line:
            return []
        text = "the same text" if line.text == first.text else f"another text, {first.text!r}"
        place = f"{first.source}:{first.number} ({first.uri})"
        return [Finding(COPY, f"it sounds the same as {place}, which has {text}")]

    def _flagged(
        self, number: int, line: "TranscriptLine", findings: Sequence[Finding], rejected: bool
    ) -> Flagged:
        values = {name: float(self.gate.values[name][number]) for name in SHOWN}
        return Flagged(
            line.source,
            line.number,
            line.uri,
            line.speaker,
            line.text,
            findings,
            rejected,
            {name: round(value, DIGITS) for name, value in values.items() if np.isfinite(value)},
        )

    def _worst(self, numbers: np.ndarray) -> list[int]:
        """Return the worst of some lines, the worst first; of equal ones the first."""
        numbers = np.sort(numbers[np.isfinite(self._score[numbers])])
        return numbers[np.argsort(-self._score[numbers], kind="stable")[:WORST]].tolist()

    def _voices(self, kept: np.ndarray, known: np.ndarray) -> dict[str, Voice]:
        """Return speaker -> medians and counts of their lines."""
        counts = self._book.of_speakers
        names = list(self.speakers)
        found = {}
        order = kept[np.argsort(self.speaker[kept], kind="stable")]
        for lines in np.split(order, np.flatnonzero(np.diff(self.speaker[order])) + 1):
            if not len(lines):
                continue
            name = names[self.speaker[lines[0]]]
            measured = lines[known[lines]]
            medians = {
                measure: float(np.median(self.gate.values[measure][measured]))
                for measure in SHOWN
                if len(measured)
            }
            found[name] = Voice(len(lines), len(measured), medians, dict(counts.get(name, {})))
        return found


def _voices(lines: "Lines", speakers: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of the speakers, and of the speakers with their languages, int [lines] each.

    Args:
        lines: all lines.
        speakers: name -> number; filled in here.
    """
    voices: dict[tuple[str, str], int] = {}
    numbers = np.zeros((2, len(lines)), np.int32)
    for start in range(0, len(lines), AT_A_TIME):
        part = np.arange(start, min(start + AT_A_TIME, len(lines)))
        table = lines.columns(part, ["speaker", "language"])
        pairs = zip(*(column.to_pylist() for column in table.columns), strict=True)
        numbers[:, part] = np.transpose(
            [
                (speakers.setdefault(pair[0], len(speakers)), voices.setdefault(pair, len(voices)))
                for pair in pairs
            ]
        )
    return numbers[0], numbers[1]
