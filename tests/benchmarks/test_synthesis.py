"""The benchmark of the synthesis runs, and its figures fit each other."""

import pytest

from benchmarks.synthesis import measure, random_voice
from tests.tiny import tiny_config


@pytest.mark.medium
def test_figures(tmp_path):
    found = measure(
        random_voice(tiny_config(), str(tmp_path), "cpu"), repeats=1, text="[EN]Yes! Good morning."
    )
    assert found["sentences"] == 2
    assert 0 < found["first_audio_s"] < found["whole_text_s"]
    assert 0 < found["first_sentence_audio_s"] < found["audio_s"] < 60
    assert found["real_time_factor"] == pytest.approx(found["whole_text_s"] / found["audio_s"])
