"""The two tasks: recordings become slices and a transcript, or a transcript is checked.

Each has three steps: what is to do (all that can be refused is refused here), the work, of which
every result is kept as it comes, and what is written once all is done.
"""

from typing import Protocol

from data.config import DataConfig
from data.corpus.progress import Progress
from data.corpus.transcript import Transcript, read_transcript
from data.files import below
from data.transcribe import checking
from data.transcribe.records.journal import claim
from data.transcribe.records.ledger import (
    LEDGER,
    SLICES,
    TRANSCRIPT,
    TranscriptionLedger,
    account_of,
)
from data.transcribe.records.listing import find_recordings, speaker_of
from data.transcribe.work import (
    TranscriptionError,
    Work,
    settings_of,
    work_on_lines,
    work_on_recordings,
)


class Task(Protocol):
    """What a run of job.transcribe does."""

    work: Work

    def finish(self) -> str:
        """Write the results, once all work is done; return what a terminal is told.

        Raises:
            TranscriptionError: nothing is left to train on.
        """


class Transcription:
    """Makes slices and a transcript of recordings.

    Args:
        cfg: the configuration.
        root: folder or URI of the recordings; or one recording.
        out: folder or URI that is written.

    Raises:
        ValueError: there are no recordings, or the folder holds something else.
        OSError: a folder cannot be read.
    """

    def __init__(self, cfg: DataConfig, root: str, out: str) -> None:
        self.cfg = cfg
        if cfg.asr.max_seconds > cfg.max_seconds:
            raise ValueError(
                f"data.asr.max_seconds is {cfg.asr.max_seconds:g}: slices that long would be "
                f"rejected, as data.max_seconds is {cfg.max_seconds:g}"
            )
        self.sources, others = find_recordings(root, out)
        self.speakers = [speaker_of(each.name, root, cfg.asr) for each in self.sources]
        claim(out, settings_of(cfg, f"--recordings {root}"))
        self.work = work_on_recordings(self.sources, out)
        done = sum(map(self.work.done.hears_all, (each.name for each in self.sources)))
        print(
            f"{len(self.sources)} recordings, of which {done} are done; {others} other files",
            flush=True,
        )

    def finish(self) -> str:
        """See `Task`."""
        accounts = [
            account_of(source, speaker, self.work.done, self.cfg.asr)
            for source, speaker in zip(self.sources, self.speakers, strict=True)
        ]
        ledger = TranscriptionLedger(accounts)
        out = self.work.out
        ledger.save(out)
        print(ledger.table(self.cfg.asr), flush=True)
        transcript = below(out, TRANSCRIPT)
        if not any(True for _ in ledger.kept()):
            raise TranscriptionError(
                f"nothing was kept: {below(out, LEDGER)} and {SLICES} beside it say why"
            )
        return (
            f"transcript: {transcript}, with {SLICES} and {LEDGER} beside it\n"
            f"next: read it, then python -m job.prepare --data.transcript {transcript}"
        )


class Check:
    """Compares a transcript with what is heard.

    Args:
        cfg: the configuration.
        uri: file, URI or glob of the transcript.
        out: folder or URI that is written.

    Raises:
        ValueError: there is no transcript, or the folder holds something else.
        OSError: it cannot be read.
    """

    def __init__(self, cfg: DataConfig, uri: str, out: str) -> None:
        self.cfg = cfg
        self.transcript: Transcript = read_transcript(uri, cfg.audio_root)
        if not len(self.transcript.lines):
            raise ValueError(f"--check {uri} has no line that can be used{self._example()}")
        claim(out, settings_of(cfg, f"--check {uri}"))
        self.work = work_on_lines(self.transcript, out)
        print(f"{len(self.transcript.lines)} lines, {len(self.work.items)} to be heard", flush=True)

    def _example(self) -> str:
        first = self.transcript.rejects[:1]
        return "".join(f": {each.source}:{each.number}: {each.detail}" for each in first)

    def finish(self) -> str:
        """See `Task`."""
        out, limit = self.work.out, self.cfg.quality.max_text_error
        checked = checking.check_lines(self.transcript, self.work.done, self.cfg)
        found = checking.suspects(checked, self.cfg)
        checking.save(out, self.transcript, checked, found)
        print(checking.report(self.transcript, found, limit), flush=True)
        transcript = below(out, checking.TRANSCRIPT)
        return (
            f"every line: {below(out, checking.CHECKED)}\n"
            f"next: correct the lines above; or python -m job.prepare --data.transcript "
            f"{transcript}, which leaves them out"
        )


def work_through(task: Task, cfg: DataConfig) -> None:
    """Do what is left to do. Ray must have been started.

    Raises:
        TranscriptionError: it cannot go on; what is done is kept.
    """
    from data.transcribe.pipeline import results_of

    work = task.work
    known = sum("hear" in item for item in work.items)
    progress = Progress("recognised", known, " slices")
    try:
        for result in work.keep(results_of(cfg, work.out, work.items)):
            if "cut" in result:
                # how many there are is known as recordings are cut
                progress.total += len(result["cut"]["slices"])
            else:
                progress.advance(1)
    finally:
        progress.close()
