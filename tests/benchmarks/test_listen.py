"""The benchmark of the page's server runs, and its figures fit each other."""

import pytest

from benchmarks.listen import measure
from benchmarks.synthesis import random_voice
from tests.tiny import tiny_config


@pytest.mark.medium
def test_figures(tmp_path):
    voice = random_voice(tiny_config(), str(tmp_path), "cpu")
    found = measure(voice, repeats=1, text="[EN]Yes! Good morning.")
    assert found["answered"] == found["at_once"] == 10
    assert 0 < found["sentence_s"] < found["first_audio_s"]
    assert found["added_s"] == pytest.approx(found["first_audio_s"] - found["sentence_s"])
    assert found["added_s"] < 0.2
