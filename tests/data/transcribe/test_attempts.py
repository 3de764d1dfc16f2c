"""A recording or slice that ends its process is tried twice, and then told of."""

import json

import numpy as np
import pytest

from data.asr_config import AsrConfig
from data.config import DataConfig
from data.transcribe.attempts import Attempts, DiedError
from data.transcribe.listing import Source
from data.transcribe.pipeline import CuttingActor, HearingActor
from data.transcribe.work import of_hearing


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


def test_slices_that_end_the_recogniser_are_named(tmp_path):
    item = of_hearing(Source("a.wav", "", "1"), 7, str(tmp_path))
    attempts = Attempts(str(tmp_path), "mine")
    for _ in range(2):
        attempts.begin(item["hear"]["uri"])
    actor = HearingActor(DataConfig(asr=AsrConfig(command="true")), "cpu", "", attempts)
    (failed,) = map(json.loads, actor(batch(item))["item"])
    assert "00007.wav and the 0 slices after it: its process died 2 times" in failed["failed"]
