"""A recording or slice that ends its process is tried twice, and then told of."""

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import data.transcribe.hearing
import data.transcribe.pipeline
from data.audio.recording import read_audio
from data.config import DataConfig
from data.settings.asr import AsrConfig
from data.transcribe.attempts import Attempts, DiedError
from data.transcribe.cutting import Cutter
from data.transcribe.pipeline import CuttingActor, HearingActor
from data.transcribe.records.listing import Source
from data.transcribe.work import of_hearing
from tests.data.corpus.without_ray import write_sound

# an actor of a run, which Ray starts again after each death
PROGRAM = """
import os
from tests.data.transcribe.test_attempts import *
for _ in range(3):
    if os.fork() == 0:
        work(sys.argv[1], Path(sys.argv[2]))
        sys.stdout.flush()
        os._exit(0)
    print("status", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
HEARS = """
import json, sys
for path in open(sys.argv[1]):
    print(json.dumps({"path": path.strip(), "text": "yes"}))
"""


def test_only_deaths_of_this_run_count(tmp_path):
    mine, other = (Attempts(str(tmp_path), run) for run in ("mine", "other"))
    for _ in range(2):
        other.begin("x")
    mine.begin("x")
    mine.end("x")
    mine.begin("x")
    mine.begin("x")
    with pytest.raises(DiedError, match="died 2 times"):
        mine.begin("x")
    assert list((tmp_path / "journal").iterdir()) == []


def batch(*items: dict) -> dict[str, np.ndarray]:
    return {"item": np.array([json.dumps(item) for item in items], dtype=object)}


def test_a_recording_that_ends_its_process_is_left_out(tmp_path):
    source = Source("a.wav", str(tmp_path / "a.wav"), "1")
    item = {"cut": {"name": "a.wav", "uri": source.uri, "version": "1"}, "heard": []}
    for _ in range(2):
        Attempts(str(tmp_path), "mine").begin("a.wav")
    (found,) = CuttingActor(DataConfig(), str(tmp_path), "mine")(batch(item))
    cut = json.loads(found["item"][0])["cut"]
    assert cut["problem"][1].startswith("its process died 2 times")


def decodes_for_ever(uri: str) -> bytes:
    while uri.endswith("b.wav"):
        time.sleep(1)
    return read_audio(uri)


def work(actor: str, folder: Path) -> None:
    """Do what an actor of a run does."""
    cfg = DataConfig(line_timeout_s=1.0, asr=AsrConfig(command=f"{sys.executable} {folder}/hears"))
    lines = [
        {"name": name, "version": "1", "number": 0, "uri": str(folder / name), "language": "EN"}
        for name in ("a.wav", "b.wav", "c.wav")
    ]
    if actor == "hears":
        data.transcribe.hearing.read_audio = decodes_for_ever
        hears = HearingActor(cfg, "cpu", "", Attempts(str(folder), "mine"))
        print(*hears(batch(*({"hear": line} for line in lines)))["item"], sep="\n")
        return
    data.transcribe.pipeline.Cutter = partial(Cutter, make=lambda asr: NeverEnds())
    item = {"cut": {"name": "b.wav", "uri": str(folder / "b.wav"), "version": "1"}, "heard": []}
    for found in CuttingActor(cfg, str(folder), "mine")(batch(item)):
        print(*found["item"], sep="\n")


class NeverEnds:
    def begin(self) -> None:
        time.sleep(60)


@pytest.mark.processes
@pytest.mark.parametrize(("actor", "results"), [("hears", 3), ("cuts", 1)])
def test_a_recording_that_never_ends_is_ended_twice_and_told_of(tmp_path, actor, results):
    for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
        write_sound(tmp_path / name, number, 1.0)
    (tmp_path / "hears").write_text(HEARS, encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, actor, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    *died, last = re.findall(r"^status (.*)$", done.stdout, re.MULTILINE)
    assert [*map(int, died)] == [-signal.SIGALRM] * 2
    assert last == "0", done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == results
    problems = [(each.get("heard") or each["cut"])["problem"] for each in found]
    (problem,) = filter(None, problems)
    assert problem[0] == "crashed"
    assert "data.line_timeout_s" in problem[1]
    if actor == "hears":
        assert [each["heard"]["text"] for each in found] == ["yes", "", "yes"]


def test_slices_that_end_the_recogniser_are_named(tmp_path):
    item = of_hearing(Source("a.wav", "", "1"), 7, str(tmp_path))
    attempts = Attempts(str(tmp_path), "mine")
    for _ in range(2):
        attempts.begin(item["hear"]["uri"])
    actor = HearingActor(DataConfig(asr=AsrConfig(command="true")), "cpu", "", attempts)
    (failed,) = map(json.loads, actor(batch(item))["item"])
    assert "00007.wav and the 0 slices after it: its process died 2 times" in failed["failed"]
