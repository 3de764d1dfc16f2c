"""The voice in the repository is understood, and so is what `make train` makes of it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from job.settings.cli import read_config
from job.voice.source import opened
from job.voice.voice import SpeechRequest, Voice
from tools.make_voice_corpus import SPEAKER, held_out
from trainable.evaluation.scorers import ClosedSetRecogniser

ROOT = Path(__file__).parents[1]
PRESETS = ROOT / "job/presets"
SMALL_VOICE = PRESETS / "small_voice"


@pytest.mark.medium
def test_the_voice_in_the_repository_is_understood():
    """Four of the held-back sentences, of which the recogniser may take any of the fifty."""
    recogniser = ClosedSetRecogniser(held_out())
    with opened(str(SMALL_VOICE), speaks_only=True) as folder:
        voice = Voice.load(folder)
    said = held_out()[:4]
    waves = [voice.say(SpeechRequest(text, SPEAKER, "EN")) for text in said]
    heard = [recogniser.hear(wave, voice.data.sampling_rate) for wave in waves]
    assert heard == [recogniser.words(text) for text in said]


def test_it_is_small_enough_to_lie_here():
    assert sum(path.stat().st_size for path in SMALL_VOICE.iterdir()) < 15_000_000


def test_make_train_goes_on_with_networks_of_the_same_sizes():
    small, going_on = (read_config(PRESETS / name) for name in ("small.yaml", "voice.yaml"))
    own = {"discriminator_width_divisor", "alignment_prior", "alignment_prior_steps"}
    differ = {key for key, value in vars(small.model).items() if vars(going_on.model)[key] != value}
    assert differ <= own
    assert going_on.train.init_from == str(SMALL_VOICE.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.cluster
def test_make_train_ends_with_a_sentence_that_is_understood(tmp_path):
    """The commands of the Makefile, in a copy of the presets."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job/presets").symlink_to(PRESETS)
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = re.search(r"^train: venv\n((?:\t.*\n)+)", recipe, re.MULTILINE)
    assert target is not None
    commands = [shlex.split(line.strip()) for line in target[1].splitlines()]
    assert [command[2] for command in commands] == ["job.prepare", "job.train", "job.synthesize"]
    for _, *rest in commands:
        subprocess.run(
            [sys.executable, *rest],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            timeout=900,
        )

    asked = commands[-1][commands[-1].index("--text") + 1]
    recogniser = ClosedSetRecogniser(held_out())
    assert recogniser.hear(
        *soundfile.read(tmp_path / "runs/voice/sample.wav", dtype="float32")
    ) == (recogniser.words(asked))
