"""The first pass over a corpus: key, length and phones of every line, or why it is rejected."""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.audio.embedded import container_of
from data.audio.recording import check_length, decode_and_measure, read_audio
from data.bert.models import front_end
from data.config import DataConfig
from data.corpus.ledger import Ledger, count_characters
from data.corpus.recipe import Recipe, audio_digest
from data.corpus.tables.files import hash64, repeated
from data.corpus.tables.lines import TranscriptLine
from data.corpus.tables.records import SURVEYED, asked, circumstances
from data.corpus.tables.rows import AT_A_TIME, Rows
from data.corpus.tables.shard_rows import HeldRows
from data.corpus.tables.surveyed import Surveyed
from data.corpus.transcript import Transcript
from data.files import UnreachableError, content_version
from data.quality.inspection import Inspection
from data.quality.measures import MEASURES, measure
from data.rejected import Reason, RejectedError
from data.text.front_end import FrontEndError, Phonemes
from data.text.scripts import seeming_language
from data.text.symbols import PAD, PUNCTUATION

VERSIONS_AT_A_TIME = 16
UNREAD_SHOWN = 20
FIRST_TEXT = "1"
_WORDLESS = frozenset((PAD, *PUNCTUATION, "SP", "UNK"))


class Surveyor:
    """Surveys lines; one per process, because the front ends load dictionaries.

    Args:
        cfg: limits, and what the front ends are made of.
        recipe: versions of front ends and BERT models.
        limited: what a line is decoded and read in.
    """

    def __init__(
        self,
        cfg: DataConfig,
        recipe: Recipe,
        limited: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.cfg = cfg
        self.recipe = recipe
        self.limited = limited
        self.circumstances = circumstances(cfg, recipe)
        self.front_ends = {language: front_end(cfg, language) for language in recipe.front_ends}
        self.loaded: set[str] = set()

    def __call__(self, lines: pa.Table) -> pa.Table:
        """Return rows of SURVEYED from rows of LINE."""
        rows = lines.to_pylist()
        versions = _versions(rows)
        found = [self._survey(*row) for row in zip(rows, versions, strict=True)]
        return pa.Table.from_pylist(found, schema=SURVEYED)

    def _survey(self, line: dict, version: str | None) -> dict:
        found = {
            "line": line["line"],
            "asked": asked(self.circumstances, line),
            "recording": hash64(line["uri"]),
            "version": version,
        }
        if version is not None and version == line["version"]:
            return {**found, "same": True, "key": line["key"]}
        try:
            audio = read_audio(line["uri"])
            digest = audio_digest(audio)
            key = self.recipe.key_of(
                line["id"], line["text"], line["language"], line["speaker"], digest
            )
            found |= {"key": key, "audio": digest}
            if key == line["key"]:
                return {**found, "same": True}
            self.load(line["language"])
            with self.limited():
                wav, measured = decode_and_measure(audio, self.cfg, measure)
                phonemes = self._read(line)
            _check_tokens(len(phonemes.word2ph), self.recipe.max_tokens[line["language"]])
        except (RejectedError, FrontEndError) as error:
            found |= {"reason": Reason(error.reason), "detail": error.detail}
            if isinstance(error, FrontEndError):
                found["detail"] += _hint(line["text"], line["language"])
                found["unread"] = _unread(line["text"], error.unread)
            return found
        except UnreachableError as error:
            # nobody knows whether the line is good: the run must stop
            return {"line": line["line"], "problem": f"{line['place']}: {error}"}
        except Exception as error:
            error.add_note(f"while preparing {line['place']} ({line['id']})")
            raise
        return {**found, "samples": len(wav), **measured, **vars(phonemes)}

    def load(self, language: str) -> None:
        """Let a front end load what it loads with its first text, which is not that line's time."""
        if language not in self.loaded:
            self.loaded.add(language)
            with suppress(FrontEndError):
                self.front_ends[language](FIRST_TEXT)

    def _read(self, line: dict) -> Phonemes:
        """Read a line's text.

        Raises:
            FrontEndError: it has no words.
        """
        text = line["text"]
        phonemes = self.front_ends[line["language"]](text)
        unread = _unread(text, phonemes.unread)
        if _WORDLESS.issuperset(phonemes.phones):
            detail = f"nothing but punctuation is left of it ({phonemes.norm_text!r})"
            raise FrontEndError("empty_text", text, detail, unread)
        return replace(phonemes, unread=unread)


def fatal(
    circumstances: Mapping[str, str], line: Mapping[str, Any], error: RejectedError
) -> dict[str, Any]:
    """Return a row of SURVEYED of a line that kills its process, which later runs try again.

    Args:
        circumstances: see data.corpus.tables.records.circumstances.
        line: a row of LINE, or what it has of one.
        error: how the process ended.
    """
    return {
        "line": line["line"],
        "asked": asked(circumstances, line),
        "recording": hash64(line["uri"]),
        "reason": error.reason,
        "detail": error.detail,
    }


def _unread(text: str, unread: str) -> str:
    """Return the unread characters of a text; compatibility forms may have made more of fewer."""
    return unread[: count_characters(text)]


def _hint(text: str, language: str) -> str:
    """Return what to say of a text that seems to be in another language than its column names."""
    seems = seeming_language(text, language)
    return f": is the language right? It looks like {seems}" if seems else ""


def _versions(lines: Sequence[dict]) -> list[str | None]:
    """Return data.files.content_version of recordings, before any of them is read.

    None where it cannot be told: reading the recording says why.
    """

    def version(line: dict) -> str | None:
        try:
            return content_version(container_of(line["uri"]))
        except (OSError, ValueError):
            return None

    # at an object store the time is all waiting
    with ThreadPoolExecutor(VERSIONS_AT_A_TIME) as pool:
        return list(pool.map(version, lines))


def judge(
    cfg: DataConfig, transcript: Transcript, surveyed: Surveyed, held: HeldRows
) -> tuple[Ledger, Rows]:
    """Book every line as kept or rejected; rows that a shard holds are judged like new ones.

    Args:
        cfg: limits of length.
        transcript: all lines.
        surveyed: what is known of each usable line.
        held: rows of the shards.

    Returns:
        The ledger, and the rows that are kept, sorted by (frames, key).
    """
    ledger = Ledger(transcript.uri, transcript.count)
    ledger.reject(transcript.rejects)
    in_shards = held.find(surveyed.key)
    lengths = {
        "samples": np.where(in_shards < 0, surveyed.samples, held.samples(in_shards)),
        "phones": np.where(in_shards < 0, surveyed.phone_count, held.phones(in_shards)),
    }
    kept = array("q")
    recordings = _Recordings(surveyed.audio)
    measured = _measured(surveyed, held, in_shards)
    inspection = Inspection(cfg, transcript.lines, measured, **lengths)
    for number, line in enumerate(transcript.lines):
        assert surveyed.ended[number], "a line was not surveyed"
        unread = surveyed.unread.get(number, "")
        if surveyed.read[number]:
            ledger.book_text(line.source, line.number, line.text, unread)
        if number in surveyed.rejected:
            reason, detail = surveyed.rejected[number]
            ledger.reject([line.reject(Reason(reason), detail)])
            continue
        samples, phones = (int(values[number]) for values in lengths.values())
        try:
            _check_lengths(cfg, samples, samples // cfg.hop_length, phones)
            _check_unread(line, unread, cfg.max_unread_share)
            recordings.check(number, line)
            inspection.check(number, line)
        except RejectedError as error:
            ledger.reject([line.reject(error.reason, error.detail)])
            continue
        ledger.keep(line.speaker, line.language, samples / cfg.sampling_rate)
        kept.append(number)
    ledger.quality = inspection.finish(kept)
    del inspection, measured  # what follows takes memory too

    lines = np.array(kept, np.int64)
    frames = (lengths["samples"] // cfg.hop_length).astype(np.int32)
    lines = lines[np.lexsort((surveyed.key[lines], frames[lines]))]
    of_lines = [
        values[lines] for values in (in_shards, lengths["samples"], frames, lengths["phones"])
    ]
    return ledger, Rows(transcript.lines, surveyed, lines, *of_lines)


def _measured(surveyed: Surveyed, held: HeldRows, in_shards: np.ndarray) -> pa.Table:
    """Return MEASURES of all lines; shards tell those of their rows."""
    parts = [MEASURES.empty_table()]
    for start in range(0, len(in_shards), AT_A_TIME):
        lines = np.arange(start, min(start + AT_A_TIME, len(in_shards)))
        found, stored = surveyed.take(lines, MEASURES.names), held.measures(in_shards[lines])
        columns = map(pc.coalesce, stored.columns, found.columns)
        parts.append(pa.table(list(columns), schema=MEASURES))
    return pa.concat_tables(parts).combine_chunks()


class _Recordings:
    """Which line has which recording, of those that several lines have.

    Args:
        audio: digests of the lines' recordings.
    """

    def __init__(self, audio: np.ndarray) -> None:
        self.audio = audio
        halves = np.ascontiguousarray(audio).view(np.uint64).reshape(len(audio), 4)
        self.suspects = repeated(halves[:, 0] ^ halves[:, 1] * np.uint64(31))
        self.first: dict[bytes, TranscriptLine] = {}

    def check(self, number: int, line: TranscriptLine) -> None:
        """Reject a line whose recording an earlier one has, under whatever name."""
        if self.suspects[number]:
            _check_recording(line, self.first.setdefault(self.audio[number], line))


def _check_lengths(cfg: DataConfig, samples: int, frames: int, phone_count: int) -> None:
    check_length(
        samples, cfg.sampling_rate, min_seconds=cfg.min_seconds, max_seconds=cfg.max_seconds
    )
    _check_alignment(phone_count, frames, cfg.add_blank)


def _check_recording(line: TranscriptLine, first: TranscriptLine) -> None:
    """Reject a line whose recording an earlier one has, under whatever name.

    Args:
        line: the line.
        first: the first line that is kept with these bytes; perhaps `line` itself.
    """
    if first is line:
        return
    same = f"the same recording as {first.source}:{first.number} ({first.uri})"
    differ = [
        f"{name} {getattr(line, name)!r} instead of {getattr(first, name)!r}"
        for name in ("text", "speaker", "language")
        if getattr(line, name) != getattr(first, name)
    ]
    if differ:
        raise RejectedError(Reason.CONTRADICTION, f"{same}, with {', '.join(differ)}")
    raise RejectedError(Reason.DUPLICATE_AUDIO, same)


def count_phones(rows: Rows, held: HeldRows) -> dict[str, Counter[str]]:
    """Return how often each phone occurs in rows that are kept, by language; phones by name.

    Args:
        rows: as `judge` returns them.
        held: rows of the shards.
    """
    codes, languages = rows.codes("language")
    counts = {language: Counter[str]() for language in languages}
    for part in rows.in_parts():
        for code, language in enumerate(languages):
            chosen = np.flatnonzero(codes[part] == code) + part.start
            new = rows.held[chosen] < 0
            counts[language].update(rows.surveyed.count_phones(rows.line[chosen[new]]))
            counts[language].update(held.count_phones(rows.held[chosen[~new]]))
    # by name, so that equally frequent ones have an order
    return {language: Counter(dict(sorted(found.items()))) for language, found in counts.items()}


def _check_unread(line: TranscriptLine, unread: str, most: float) -> None:
    characters = count_characters(line.text)
    if len(unread) > most * characters:
        shown = " ".join(dict.fromkeys(unread[:UNREAD_SHOWN]))
        raise RejectedError(
            Reason.UNREAD,
            f"no rule reads {len(unread)} of its {characters} characters ({shown}), and "
            f"data.max_unread_share allows {most:.0%}{_hint(line.text, line.language)}",
        )


def _check_tokens(tokens: int, most: int | None) -> None:
    if most is not None and tokens > most:
        raise RejectedError(Reason.TEXT_TOO_LONG, f"{tokens} tokens, BERT reads {most} at once")


def _check_alignment(phones: int, frames: int, add_blank: bool) -> None:
    entries = 2 * phones + 1 if add_blank else phones
    if entries > frames:
        raise RejectedError(
            Reason.TOO_MANY_PHONES,
            f"{entries} phones and blanks for {frames} frames: "
            "text and recording do not belong together",
        )
