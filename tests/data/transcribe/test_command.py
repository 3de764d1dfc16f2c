"""A command as recogniser: what it is given, what it may print, and how it may fail."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data.settings.asr import AsrConfig
from data.transcribe.command import CommandRecogniser, check_command
from data.transcribe.recogniser import Heard, Sound

pytestmark = pytest.mark.processes


def recognise(tmp_path: Path, program: str, language: str | None = None) -> list[Heard]:
    (tmp_path / "program.py").write_text(f"import json, sys\n{program}\n")
    command = f"{sys.executable} {tmp_path / 'program.py'} --quick"
    sounds = [
        Sound(str(tmp_path / "a b.wav"), b"", np.zeros(4, np.float32)),
        Sound("memory://x/c.wav", b"RIFF", np.zeros(4, np.float32), "JP"),
    ]
    return CommandRecogniser(AsrConfig(command=command, language=language))(sounds)


SAYS = """
assert sys.argv[1] == "--quick"
print("loading a model ...")
paths = open(sys.argv[2]).read().splitlines()
for path in reversed(paths):
    here = open(path, "rb").read() == b"RIFF" if "a b" not in path else False
    print(json.dumps({"path": path, "text": f"it  is\\n{here}"EXTRA}))
"""


def test_it_is_given_paths_and_prints_json_in_any_order(tmp_path):
    heard = recognise(tmp_path, SAYS.replace("EXTRA", ', "language": "en", "confidence": 0.5'))
    assert heard == [Heard("it is False", "en", 0.5), Heard("it is True", "en", 0.5)]


def test_languages_may_be_known(tmp_path):
    heard = recognise(tmp_path, SAYS.replace("EXTRA", ""), language="ZH")
    assert [(each.language, each.confidence) for each in heard] == [("ZH", None), ("JP", None)]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("sys.exit('no memory')", "ended with status 1: no memory"),
        ("print('{}')", "without path or text"),
        ("print('{')", "no JSON"),
        ("pass", "printed no line for .*a b.wav .2 of 2 wavs"),
        (SAYS.replace("EXTRA", ""), "tells no language for"),
        (SAYS.replace("EXTRA", ', "language": "en", "confidence": 7'), "the confidence 7"),
    ],
)
def test_failures_are_told_in_one_line(tmp_path, program, told):
    with pytest.raises(ValueError, match=rf"data\.asr\.command .*{told}"):
        recognise(tmp_path, program)


def test_a_command_that_is_not_there():
    with pytest.raises(ValueError, match="there is no program 'no-such'"):
        check_command("no-such 'x y'")
    with pytest.raises(ValueError, match="No closing quotation"):
        check_command("python 'x")
