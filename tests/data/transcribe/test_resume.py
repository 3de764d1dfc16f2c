"""A run that ends early goes on: what is done is not done again, and nothing is mixed or lost."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.config import DataConfig
from data.settings.asr import AsrConfig
from data.transcribe.attempts import Attempts
from data.transcribe.pipeline import CuttingActor, HearingActor
from data.transcribe.recogniser import Heard, Sound
from data.transcribe.records import journal
from data.transcribe.transcribe import Transcription
from tests.data.transcribe.test_cutting import Told

CFG = DataConfig(asr=AsrConfig(command="true", batch=2))
RATE = 8000
SPEECH = [(1.0, 4.0), (5.0, 8.0), (9.0, 12.0)]


class Recogniser:
    """Hears the level of each slice."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, sounds: Sequence[Sound]) -> list[Heard]:
        self.heard += [sound.uri.partition("/wavs/")[2] for sound in sounds]
        return [Heard(f"level {np.abs(each.wav).max():.1f}", "en", 0.9) for each in sounds]


@pytest.fixture
def recordings(tmp_path) -> Path:
    for name, level in (("anna/a.wav", 0.1), ("ben/b.wav", 0.2)):
        write(tmp_path / "recordings" / name, level)
    return tmp_path / "recordings"


def write(path: Path, level: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, level * np.sin(np.arange(13 * RATE) / 3), RATE)


def begin(recordings: Path, cfg: DataConfig = CFG) -> Transcription:
    return Transcription(cfg, str(recordings), str(recordings.parent / "out"))


def results(task: Transcription, recogniser: Recogniser) -> Iterator[dict]:
    """Do the work as the actors do it, without Ray."""
    out = task.work.out
    cutter = CuttingActor(task.cfg, out, "run")
    cutter.cutter.make = lambda asr: Told(SPEECH)
    hearer = HearingActor(task.cfg, "cpu", "", Attempts(out, "run"))
    hearer.recogniser = recogniser
    for item in task.work.items:
        for row in cutter({"item": np.array([json.dumps(item)], dtype=object)}):
            yield from map(json.loads, hearer(row)["item"])


def finish(task: Transcription, recogniser: Recogniser) -> str:
    list(task.work.keep(results(task, recogniser)))
    task.finish()
    return Path(task.work.out, "transcript.list").read_text()


def test_what_is_done_is_not_done_again(recordings):
    first, second = Recogniser(), Recogniser()
    task = begin(recordings)
    some = task.work.keep(results(task, first))
    for _ in range(4):  # a recording's cut, its three slices
        next(some)
    next(some)  # the other one's cut
    some.close()  # Ctrl-C
    whole = finish(begin(recordings), second)
    assert first.heard == [f"anna/a.wav/0000{n}.wav" for n in (1, 2, 3)]
    assert second.heard == [f"ben/b.wav/0000{n}.wav" for n in (1, 2, 3)]
    assert whole.splitlines() == [
        *(f"wavs/anna/a.wav/0000{n}.wav|anna|EN|level 0.1" for n in (1, 2, 3)),
        *(f"wavs/ben/b.wav/0000{n}.wav|ben|EN|level 0.2" for n in (1, 2, 3)),
    ]
    third = begin(recordings)
    assert third.work.items == []
    third.finish()
    assert Path(third.work.out, "transcript.list").read_text() == whole


def test_a_recording_that_changed_is_done_again_alone(recordings):
    finish(begin(recordings), Recogniser())
    write(recordings / "ben/b.wav", 0.4)
    again = Recogniser()
    assert "|ben|EN|level 0.4" in finish(begin(recordings), again)
    assert {name.partition("/")[0] for name in again.heard} == {"ben"}


def test_results_are_written_while_the_next_ones_are_waited_for(recordings, monkeypatch):
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.05)
    task = begin(recordings)
    kept = task.work.keep(results(task, Recogniser()))
    next(kept)
    task.work.journal.timer.join(10)  # a kill would come here
    assert len(begin(recordings).work.done.cuts) == 1
    kept.close()


def test_many_files_of_the_journal_become_one(recordings, monkeypatch):
    monkeypatch.setattr(journal, "MOST_FILES", 3)
    task = begin(recordings)
    for result in results(task, Recogniser()):
        task.work.journal.add(result)
        task.work.journal.flush()
    folder = Path(task.work.out, "journal")
    assert len(list(folder.glob("*.jsonl"))) == 8
    for _ in range(2):
        assert begin(recordings).work.items == []
        assert len(list(folder.glob("*.jsonl"))) == 1


def test_thresholds_of_what_is_kept_are_applied_at_once(recordings):
    finish(begin(recordings), Recogniser())
    stricter = replace(CFG, asr=replace(CFG.asr, min_confidence=0.95, speaker="file"))
    task = begin(recordings, stricter)
    assert task.work.items == []
    with pytest.raises(ValueError, match="nothing was kept"):
        task.finish()


def test_other_settings_and_other_folders_are_refused(recordings):
    finish(begin(recordings), Recogniser())
    other = replace(CFG, asr=replace(CFG.asr, pause=0.3))
    with pytest.raises(ValueError, match=r"data\.asr\.pause was 0\.5, is 0\.3\): set them back"):
        begin(recordings, other)
    (recordings.parent / "more").mkdir()
    write(recordings.parent / "more/c.wav", 0.1)
    with pytest.raises(
        ValueError, match=r"of was --recordings .*recordings, is --recordings .*mor"
    ):
        Transcription(CFG, str(recordings.parent / "more"), str(recordings.parent / "out"))
