"""Where each second of the recordings went: into a slice of the transcript, or dropped, and why.

kept + dropped = duration, for every recording, to the sample.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.files import below, put_file
from data.settings.asr import AsrConfig
from data.text.languages import code_of
from data.transcribe.records.listing import Source, slice_path
from data.transcribe.work import Done, Result

TRANSCRIPT = "transcript.list"
SLICES = "slices.jsonl"
LEDGER = "ledger.jsonl"
SPEAKERS_SHOWN = 20

SILENCE = "silence"  # no speech, or the recogniser's word for it
TOO_SHORT = "too_short"  # below data.min_seconds, and alone
MISSING = "truncated_audio"  # what the header promises and the file lacks
NO_TEXT = "no_text"
OTHER_LANGUAGE = "other_language"  # not in data.text.languages
UNSURE = "unsure"  # below data.asr.min_confidence


def refusal_of(heard: Result, cfg: AsrConfig) -> tuple[str, str] | None:
    """Return why what was heard is not kept, as reason and detail; None if it is.

    Args:
        heard: result of data.transcribe.hearing.
        cfg: `min_confidence`.
    """
    if heard["problem"] is not None:
        reason, detail = heard["problem"]
        return reason, detail
    if not any(char.isalnum() for char in heard["text"]):
        return NO_TEXT, f"the recogniser hears {heard['text']!r}"
    if code_of(heard["language"]) is None:
        return OTHER_LANGUAGE, f"it is in {heard['language']!r}"
    confidence = heard["confidence"]
    if confidence is not None and confidence < cfg.min_confidence:
        return UNSURE, f"confidence {confidence:.2f}, data.asr.min_confidence {cfg.min_confidence}"
    return None


@dataclass
class Account:
    """The account of a recording, in samples.

    Attributes:
        name: name of the recording.
        speaker: who speaks.
        rate: sampling rate, Hz.
        samples: length.
        kept: length of the slices that are kept.
        dropped: reason -> length.
        slices: what slices.jsonl tells of each of them.
        problem: reason and detail, if the recording cannot be used at all.
    """

    name: str
    speaker: str
    rate: int
    samples: int
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    slices: list[dict[str, Any]] = field(default_factory=list)
    problem: tuple[str, str] | None = None

    def seconds(self, samples: int) -> float:
        """Return samples as seconds."""
        return round(samples / self.rate, 6) if self.rate else 0.0

    def row(self) -> dict[str, Any]:
        """Return the line of ledger.jsonl."""
        dropped = {reason: self.seconds(count) for reason, count in sorted(self.dropped.items())}
        row: dict[str, Any] = {
            "recording": self.name,
            "speaker": self.speaker,
            "seconds": self.seconds(self.samples),
            "kept": self.seconds(self.kept),
            "dropped": dropped,
            "slices": len(self.slices),
            "kept_slices": sum(not each["dropped"] for each in self.slices),
        }
        if self.problem:
            row["reason"], row["detail"] = self.problem
        return row


def account_of(source: Source, speaker: str, done: Done, cfg: AsrConfig) -> Account:
    """Return the account of a recording that is done.

    Args:
        source: the recording.
        speaker: who speaks in it.
        done: its cut, and what was heard.
        cfg: `min_confidence`.
    """
    cut = done.cuts[source.name]
    account = Account(source.name, speaker, cut["rate"], cut["samples"])
    if cut["problem"] is not None:
        account.problem = tuple(cut["problem"])
        return account
    for number, (begin, end, forced) in enumerate(cut["slices"], start=1):
        heard = done.heard[source.name][number]
        refused = refusal_of(heard, cfg)
        account.slices.append(
            {
                "path": slice_path(source.name, number),
                "recording": source.name,
                "begin": account.seconds(begin),
                "end": account.seconds(end),
                "forced": forced,
                "speaker": speaker,
                "language": code_of(heard["language"]) or heard["language"],
                "confidence": heard["confidence"] and round(heard["confidence"], 4),
                "text": heard["text"],
                "dropped": refused[0] if refused else None,
                "detail": refused[1] if refused else None,
            }
        )
        if refused:
            account.dropped[refused[0]] += end - begin
        else:
            account.kept += end - begin
    _book_the_rest(account, cut)
    return account


def _book_the_rest(account: Account, cut: Result) -> None:
    """Book what is in no slice."""
    account.dropped[TOO_SHORT] += sum(end - begin for begin, end, _ in cut["too_short"])
    account.dropped[MISSING] += cut["missing"]
    account.dropped[SILENCE] += account.samples - account.kept - account.dropped.total()
    account.dropped = +account.dropped
    assert account.kept + account.dropped.total() == account.samples, account.name


class TranscriptionLedger:
    """The accounts of all recordings.

    Args:
        accounts: one per recording, in order.
    """

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.accounts = accounts

    def kept(self) -> Iterator[dict[str, Any]]:
        """Yield the slices that are kept."""
        for account in self.accounts:
            yield from (each for each in account.slices if not each["dropped"])

    def save(self, out: str) -> None:
        """Write the transcript, the slices and the ledger; the transcript last.

        Args:
            out: folder or URI.
        """
        slices = (each for account in self.accounts for each in account.slices)
        put_file(below(out, SLICES), _lines(map(_json, slices)))
        put_file(below(out, LEDGER), _lines(_json(each.row()) for each in self.accounts))
        lines = (
            f"{each['path']}|{each['speaker']}|{each['language']}|{each['text']}"
            for each in self.kept()
        )
        put_file(below(out, TRANSCRIPT), _lines(lines))

    def table(self, cfg: AsrConfig) -> str:
        """Return the balance for a terminal: by reason and by speaker.

        Args:
            cfg: `min_seconds`.
        """
        rows = [each.row() for each in self.accounts]
        seconds = sum(row["seconds"] for row in rows)
        kept = sum(row["kept"] for row in rows)
        count = sum(row["kept_slices"] for row in rows)
        told = [f"{len(rows)} recordings, {_hms(seconds)}: {count} slices kept, {_hms(kept)}"]

        dropped = Counter[str]()
        for row in rows:
            dropped.update(row["dropped"])
        told += [f"  dropped {name:<20}{_hms(time):>12}" for name, time in dropped.most_common()]
        for row in (row for row in rows if "reason" in row):
            told.append(f"  not read {row['recording']}: {row['reason']}: {row['detail']}")

        slices = list(self.kept())
        short = sum(each["end"] - each["begin"] < cfg.min_seconds for each in slices)
        forced = sum(each["forced"] for each in slices)
        if short:
            told.append(f"  {short} are shorter than data.asr.min_seconds, and alone")
        if forced:
            told.append(f"  {forced} are cut where speech goes on: no silence was near")
        return "\n".join(told + list(self._speakers()))

    def _speakers(self) -> Iterator[str]:
        lengths = Counter[str]()
        languages: dict[str, set[str]] = {}
        for each in self.kept():
            lengths[each["speaker"]] += each["end"] - each["begin"]
            languages.setdefault(each["speaker"], set()).add(each["language"])
        for speaker, seconds in lengths.most_common(SPEAKERS_SHOWN):
            spoken = ", ".join(sorted(languages[speaker]))
            yield f"  speaker {speaker:<20}{_hms(seconds):>12}  {spoken}"
        if len(lengths) > SPEAKERS_SHOWN:
            yield f"  and {len(lengths) - SPEAKERS_SHOWN} speakers with less"


def _hms(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _lines(lines: Any) -> bytes:
    # names of files may be no UTF-8
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
