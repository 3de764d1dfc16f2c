"""The first pass over a corpus: key, length and phones of every line, or why it is rejected."""

from collections import Counter
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from data.audio.recording import check_file, check_length, decode_audio, read_audio
from data.bert.models import front_end
from data.config import DataConfig
from data.corpus.ledger import Ledger, count_characters
from data.corpus.recipe import Recipe, audio_digest
from data.corpus.transcript import Transcript, TranscriptLine
from data.files import UnreachableError
from data.rejected import Reason, RejectedError
from data.text.front_end import FrontEndError, Phonemes
from data.text.scripts import seeming_language
from data.text.symbols import PAD, PUNCTUATION

UNREAD_SHOWN = 20

_WORDLESS = frozenset((PAD, *PUNCTUATION, "SP", "UNK"))

LINE = pa.schema(
    [("line", pa.int64())]  # among the usable lines of the transcript, from 0
    + [(name, pa.string()) for name in ("place", "id", "speaker", "language", "text", "uri")]
)
SURVEYED = pa.schema(
    [
        ("line", pa.int64()),
        ("problem", pa.string()),  # why the whole run stops; all below is then null
        ("reason", pa.string()),  # why the line is rejected; all below is then null
        ("detail", pa.string()),
        ("key", pa.string()),
        ("audio", pa.string()),  # data.corpus.recipe.audio_digest of the recording
        ("unread", pa.string()),  # characters that no rule read; null if the text was not read
        ("samples", pa.int64()),  # null, as all below, if a shard holds the row already
        ("norm_text", pa.string()),
        ("phones", pa.list_(pa.string())),
        ("tones", pa.list_(pa.int8())),
        ("word2ph", pa.list_(pa.int16())),
        ("bert_text", pa.string()),
        ("bert_tokens", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class HeldRow:
    """Where a row lies that a shard holds already, and its lengths."""

    shard: str
    row: int
    samples: int
    phones: str  # separated by spaces


class Surveyor:
    """Surveys lines; one per process, because the front ends load dictionaries.

    Args:
        cfg: limits, and what the front ends are made of.
        recipe: versions of front ends and BERT models.
        held: keys of rows that a shard holds already; these are not computed again.
    """

    def __init__(self, cfg: DataConfig, recipe: Recipe, held: frozenset[str]) -> None:
        self.cfg = cfg
        self.recipe = recipe
        self.held = held
        self.front_ends = {language: front_end(cfg, language) for language in recipe.front_ends}

    def __call__(self, lines: pa.Table) -> pa.Table:
        """Return rows of SURVEYED from rows of LINE."""
        rows = [self._survey(line) for line in lines.to_pylist()]
        return pa.Table.from_pylist(rows, schema=SURVEYED)

    def _survey(self, line: dict) -> dict:
        try:
            audio = read_audio(line["uri"])
            digest = audio_digest(audio)
            key = self.recipe.key_of(
                line["id"], line["text"], line["language"], line["speaker"], digest
            )
            found = {"line": line["line"], "key": key, "audio": digest}
            # it was surveyed when its shard was written, perhaps by code that kept cut files
            if key in self.held:
                check_file(audio)
                return {**found, "unread": self._read(line).unread}
            samples = len(decode_audio(audio, self.cfg))
            phonemes = self._read(line)
            _check_tokens(len(phonemes.word2ph), self.recipe.max_tokens[line["language"]])
        except (RejectedError, FrontEndError) as error:
            detail = error.detail
            unread = None
            if isinstance(error, FrontEndError):
                detail += _hint(line)
                unread = _unread(line["text"], error.unread)
            reason = Reason(error.reason)
            return {"line": line["line"], "reason": reason, "detail": detail, "unread": unread}
        except UnreachableError as error:
            # nobody knows whether the line is good: the run must stop
            return {"line": line["line"], "problem": f"{line['place']}: {error}"}
        except Exception as error:
            error.add_note(f"while preparing {line['place']} ({line['id']})")
            raise
        return {**found, "samples": samples, **vars(phonemes)}

    def _read(self, line: dict) -> Phonemes:
        """Read a line's text.

        Raises:
            FrontEndError: it has no words, or no rule reads too many of its characters.
        """
        text = line["text"]
        phonemes = self.front_ends[line["language"]](text)
        unread = _unread(text, phonemes.unread)
        if _WORDLESS.issuperset(phonemes.phones):
            detail = f"nothing but punctuation is left of it ({phonemes.norm_text!r})"
            raise FrontEndError("empty_text", text, detail, unread)
        characters = count_characters(text)
        if len(unread) > self.cfg.max_unread_share * characters:
            shown = " ".join(dict.fromkeys(unread[:UNREAD_SHOWN]))
            detail = (
                f"no rule reads {len(unread)} of its {characters} characters ({shown}), and "
                f"data.max_unread_share allows {self.cfg.max_unread_share:.0%}"
            )
            raise FrontEndError("unread", text, detail, unread)
        return replace(phonemes, unread=unread)


def _unread(text: str, unread: str) -> str:
    """Return the unread characters of a text; compatibility forms may have made more of fewer."""
    return unread[: count_characters(text)]


def _hint(line: dict) -> str:
    """Return what to say of a text that seems to be in another language than its column names."""
    seems = seeming_language(line["text"], line["language"])
    return f": is the language right? It looks like {seems}" if seems else ""


def line_rows(transcript: Transcript) -> list[dict]:
    """Return the usable lines of a transcript as rows of LINE."""
    return [_line_row(number, line) for number, line in enumerate(transcript.lines)]


def judge(
    cfg: DataConfig, transcript: Transcript, surveyed: pa.Table, held: dict[str, HeldRow]
) -> tuple[Ledger, list[dict]]:
    """Book every line as kept or rejected; rows that a shard holds are judged like new ones.

    Args:
        cfg: limits of length.
        transcript: all lines.
        surveyed: rows of SURVEYED, one per usable line.
        held: key -> row that a shard holds.

    Returns:
        The ledger, and the rows that are kept, sorted by (frames, key): LINE, `split`, `key`,
        `samples`, `frames`, `phone_count`, and `surveyed`, their row of that table.
    """
    ledger = Ledger(transcript.uri, transcript.count)
    ledger.reject(transcript.rejects)

    # as Python objects the phones of a large corpus would fill gigabytes: take only their number
    light = surveyed.select(["line", "reason", "detail", "key", "audio", "unread", "samples"])
    light = light.append_column("phone_count", pc.list_value_length(surveyed.column("phones")))

    rows = []
    waiting = dict(enumerate(transcript.lines))
    first: dict[str, TranscriptLine] = {}  # recording -> the line that is kept with it
    # in the transcript's order, whichever was surveyed first
    for index, found in sorted(enumerate(light.to_pylist()), key=lambda pair: pair[1]["line"]):
        line = waiting.pop(found["line"])
        if found["unread"] is not None:
            ledger.book_text(line.source, line.number, line.text, found["unread"])
        if found["reason"] is not None:
            ledger.reject([line.reject(Reason(found["reason"]), found["detail"])])
            continue
        lengths = _lengths(found, held.get(found["key"]), cfg.hop_length)
        try:
            _check_lengths(cfg, **lengths)
            _check_recording(line, first.setdefault(found["audio"], line))
        except RejectedError as error:
            ledger.reject([line.reject(error.reason, error.detail)])
            continue
        ledger.keep(line.speaker, line.language, lengths["samples"] / cfg.sampling_rate)
        row = _line_row(found["line"], line)
        row |= {"split": line.split, "key": found["key"], "surveyed": index, **lengths}
        rows.append(row)
    return ledger, sorted(rows, key=lambda row: (row["frames"], row["key"]))


def _lengths(found: dict, held: HeldRow | None, hop_length: int) -> dict[str, int]:
    """Return `samples`, `frames` and `phone_count` of a surveyed line."""
    samples = found["samples"] if held is None else held.samples
    phones = found["phone_count"] if held is None else held.phones.count(" ") + 1
    return {"samples": samples, "frames": samples // hop_length, "phone_count": phones}


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


def count_phones(
    rows: list[dict], surveyed: pa.Table, held: dict[str, HeldRow]
) -> dict[str, Counter[str]]:
    """Return how often each phone occurs in rows that are kept, by language.

    Args:
        rows: as `judge` returns them.
        surveyed: rows of SURVEYED.
        held: key -> row that a shard holds.
    """
    counts: dict[str, Counter[str]] = {}
    new: dict[str, list[int]] = {}  # language -> rows of `surveyed`
    for row in rows:
        counted = counts.setdefault(row["language"], Counter())
        if row["key"] in held:
            counted.update(held[row["key"]].phones.split(" "))
        else:
            new.setdefault(row["language"], []).append(row["surveyed"])

    for language, indices in new.items():
        phones = pc.list_flatten(surveyed.column("phones").take(indices))
        found = {entry["values"]: entry["counts"] for entry in phones.value_counts().to_pylist()}
        counts[language].update(found)
    return counts


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


def _line_row(number: int, line: TranscriptLine) -> dict:
    return {
        "line": number,
        "place": f"{line.source}:{line.number}",
        "id": line.id,
        "speaker": line.speaker,
        "language": line.language,
        "text": line.text,
        "uri": line.uri,
    }
