"""What a run has to do: recordings to cut, slices or lines to recognise, without what is done."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from data.config import DataConfig
from data.corpus.tables.lines import TranscriptLine
from data.corpus.transcript import Transcript
from data.files import below, version_of
from data.transcribe.records.journal import Journal
from data.transcribe.records.listing import Source, slice_path

Result = dict[str, Any]
LOOKS_AT_A_TIME = 16
WHOLE = 0  # number of a recording that is not cut
# which slices there are, and what is heard in them, follows from these
OF_RESULTS = (
    "model",
    "revision",
    "command",
    "language",
    "speech_threshold",
    "pause",
    "join_pause",
    "margin",
    "min_seconds",
    "max_seconds",
)


class TranscriptionError(ValueError):
    """A transcription cannot go on, whatever the recordings hold; what is done is kept."""


def settings_of(cfg: DataConfig, what: str) -> dict[str, Any]:
    """Return what the results of a run depend on, by key.

    Args:
        cfg: the configuration.
        what: the recordings or the transcript: option and place.
    """
    asr = {f"data.asr.{key}": getattr(cfg.asr, key) for key in OF_RESULTS}
    if cfg.asr.command is not None:
        asr |= {"data.asr.model": None, "data.asr.revision": None}
    return {"of": what, "data.min_seconds": cfg.min_seconds, **asr}


def of_hearing(source: Source, number: int, out: str) -> dict[str, Any]:
    """Return the item of a slice that is to be recognised."""
    return {
        "hear": {
            "name": source.name,
            "version": source.version,
            "number": number,
            "uri": below(out, slice_path(source.name, number)),
            "language": None,
        }
    }


@dataclass
class Done:
    """The results of a folder that still hold: those of recordings as they are now.

    Attributes:
        cuts: name of a recording -> its cut.
        heard: name -> number of a slice -> what was heard; the number of a whole recording is 0.
    """

    versions: Mapping[str, str]
    cuts: dict[str, Result] = field(default_factory=dict)
    heard: dict[str, dict[int, Result]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take a result of the journal."""
        (kind, found), *_ = result.items()
        name = found["name"]
        if self.versions.get(name) != found["version"]:
            return
        if kind == "cut":
            self.cuts[name] = found
        else:
            self.heard.setdefault(name, {})[found["number"]] = found

    def hears_all(self, name: str) -> bool:
        """Tell whether a recording is done: cut, and each of its slices heard."""
        cut = self.cuts.get(name)
        return cut is not None and len(self.heard.get(name, ())) >= len(cut["slices"])


@dataclass
class Work:
    """What there is to do in a folder, and what is done.

    Attributes:
        out: folder or URI that is written.
        items: what is left to do, for data.transcribe.pipeline.
        done: results.
        journal: keeps results.
    """

    out: str
    items: list[dict[str, Any]]
    done: Done
    journal: Journal

    def keep(self, results: Iterator[Result]) -> Iterator[Result]:
        """Keep results as they come; yield them."""
        try:
            for result in results:
                self.journal.add(result)
                self.done.add(result)
                yield result
        finally:
            self.journal.flush()


def work_on_recordings(sources: Sequence[Source], out: str) -> Work:
    """Return what is left to do for recordings that are cut and recognised."""
    done, journal = _done({each.name: each.version for each in sources}, out)
    items: list[dict[str, Any]] = []
    for source in sources:
        heard = done.heard.get(source.name, {})
        if source.name not in done.cuts:
            items.append({"cut": asdict(source), "heard": sorted(heard)})
            continue
        numbers = range(1, len(done.cuts[source.name]["slices"]) + 1)
        left = sorted(set(numbers) - set(heard))
        items += [of_hearing(source, number, out) for number in left]
    return Work(out, items, done, journal)


def work_on_lines(transcript: Transcript, out: str) -> Work:
    """Return what is left to do for the lines of a transcript, whose recordings are whole."""
    with ThreadPoolExecutor(LOOKS_AT_A_TIME) as pool:
        uris = [line.uri for line in transcript.lines]
        versions = dict(zip(uris, pool.map(_version, uris), strict=True))
    done, journal = _done(versions, out)
    items = [
        {"hear": _of_line(line, versions[line.uri])}
        for line in transcript.lines
        if line.uri not in done.heard
    ]
    return Work(out, items, done, journal)


def _of_line(line: TranscriptLine, version: str) -> dict[str, Any]:
    return {
        "name": line.uri,
        "version": version,
        "number": WHOLE,
        "uri": line.uri,
        "language": line.language,
    }


def _version(uri: str) -> str:
    try:
        return version_of(uri)
    except FileNotFoundError:
        return "missing"


def _done(versions: Mapping[str, str], out: str) -> tuple[Done, Journal]:
    """Return the results of a folder, and its journal."""
    journal = Journal(out)
    done = Done(versions)
    for result in journal.read():
        done.add(result)
    return done, journal
