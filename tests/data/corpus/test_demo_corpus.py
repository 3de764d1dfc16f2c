"""The bundled corpus can be prepared by anybody."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.text.front_end import get_front_end

CORPUS = Path(__file__).parents[3] / "job" / "presets" / "demo_corpus"
ROWS = [line.split("|") for line in (CORPUS / "esd.list").read_text(encoding="utf-8").splitlines()]


def test_two_speakers_per_language():
    speakers = {speaker: language for _, speaker, language, _ in ROWS}
    assert Counter(speakers.values()) == {"ZH": 2, "JP": 2, "EN": 2}


def test_every_recording_is_named_once():
    named = [path for path, *_ in ROWS]
    found = [file.relative_to(CORPUS).as_posix() for file in CORPUS.rglob("*.flac")]
    assert sorted(named) == sorted(found)


def test_some_texts_have_digits():
    with_digits = {row[2] for row in ROWS if any(char.isdigit() for char in row[3])}
    assert with_digits == {"ZH", "JP", "EN"}


@pytest.mark.parametrize(
    ("path", "speaker", "language", "text"), ROWS, ids=[path for path, *_ in ROWS]
)
def test_utterance(path, speaker, language, text):
    assert path.startswith(f"wavs/{speaker}/")
    info = soundfile.info(CORPUS / path)
    assert (info.samplerate, info.channels) == (44100, 1)
    assert (info.format, info.subtype) == ("FLAC", "PCM_16")

    samples, _ = soundfile.read(CORPUS / path)
    assert 1.0 < len(samples) / 44100 < 5.0
    assert 0.5 < np.abs(samples).max() < 1.0
    assert -30 < 20 * np.log10(np.sqrt(np.mean(samples**2))) < -6

    phones = len(get_front_end(language)(text).phones)
    # an alignment needs at least one frame (512 samples) per phone and blank
    assert 2 * phones + 1 < len(samples) / 512
