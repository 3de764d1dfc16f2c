"""The command that speaks: one text, many lines, and long texts sentence by sentence."""

import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile

from job.synthesize import main
from job.voice.lines import Line, read_lines
from job.voice.voice import SpeechRequest, Voice
from tests.job.voices import SAID, tiny_checkpoint

DEFAULT = SpeechRequest("", "en", "EN")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="module")
def voice(checkpoint):
    return Voice.load(checkpoint)


@pytest.fixture
def speak(checkpoint):
    def run(*argv: str) -> int:
        return main(
            [
                "--checkpoint",
                str(checkpoint.parent),
                "--speaker",
                "en",
                "--device",
                "cpu",
                *map(str, argv),
            ]
        )

    return run


@pytest.mark.medium
def test_lines_of_a_file_are_spoken_and_bad_ones_named(speak, voice, tmp_path, capsys):
    rows = [
        json.dumps({"id": own, "text": text, "speaker": own, "language": language, "seed": 3})
        for language, (own, text) in SAID.items()
    ]
    bad = [
        '{"text": "Hi.", "speaker": "nobody"}',
        '{"id": "zh", "text": "Hi."}',
        "[ZH]😀",
        '{"text": "Hi.", "pitch": 1}',
    ]
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(["\ufeffHello there.", "", *rows, *bad]), encoding="utf-8")
    status = speak("--lines", file, "--language", "EN", "--out", tmp_path / "out", "--batch", 2)
    assert status == 1
    errors = capsys.readouterr().err.splitlines()
    expected = {
        6: "no speaker 'nobody'",
        7: "the id 'zh' is that of line 3",
        8: "empty_text",
        9: "unknown key 'pitch'",
    }
    assert len(errors) == len(expected)
    for error, (number, what) in zip(errors, expected.items(), strict=True):
        assert error.startswith(f"error: {file}:{number}: ")
        assert what in error
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"00001", "zh", "jp", "en"}
    for language, (own, text) in SAID.items():
        wave, rate = soundfile.read(tmp_path / f"out/{own}.wav")
        assert rate == voice.data.sampling_rate
        assert np.abs(wave - voice.say(SpeechRequest(text, own, language, seed=3))).max() < 1e-4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "Expecting"),
        ('{"speaker": "en"}', "it has no text"),
        ('{"text": "a", "seed": 1.5}', "seed is 1.5, but must be of type int"),
        ('{"text": "a", "sdp_ratio": "much"}', 'sdp_ratio is "much", but must be of type float'),
        ('{"text": "a", "sdp_ratio": 2}', "sdp_ratio is 2: give a share from 0 to 1"),
        ('{"text": "a", "id": "../a"}', "id is '../a': give the name of a file"),
    ],
)
def test_lines_that_make_no_sense(tmp_path, row, message):
    (tmp_path / "lines").write_text(f"Fine.\n{row}\n")
    lines, mistakes = read_lines(str(tmp_path / "lines"), DEFAULT)
    assert lines == [Line(1, "00001", SpeechRequest("Fine.", "en", "EN"))]
    assert message in mistakes[2]


@pytest.mark.medium
def test_a_stream_is_its_sentences_with_pauses(speak, voice, tmp_path, monkeypatch):
    sentences = ["[EN]Good morning.", "[EN]How are[ZH]你？", "[JP]はい。"]
    heard = []
    monkeypatch.setattr(
        Voice,
        "say",
        lambda self, speech, say=Voice.say: heard.append(written()) or say(self, speech),
    )
    out = tmp_path / "new/out.wav"

    def written() -> int:
        return out.stat().st_size if out.exists() else 0

    assert speak("--text", " ".join(sentences), "--stream", "--pause", 0.1, "--out", out) == 0
    assert heard[0] == 0
    assert heard[1] > 10_000 and heard[2] > heard[1]  # written before the next one is spoken
    monkeypatch.undo()
    wave, rate = soundfile.read(out)
    pieces = [voice.say(SpeechRequest(text, "en")) for text in sentences]
    silence = np.zeros(rate // 10)
    expected = np.concatenate([pieces[0], silence, pieces[1], silence, pieces[2]])
    assert len(wave) == len(expected)
    assert np.abs(wave - expected).max() < 1e-4


@pytest.mark.medium
def test_standard_input_to_standard_output(speak, voice, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Good\nmorning. Yes!"))
    assert speak("--text", "-", "--language", "EN", "--stream", "--out", "-", "--pause", "0") == 0
    out, report = capfdbinary.readouterr()
    assert b"-: " in report
    wave, rate = soundfile.read(io.BytesIO(out))
    assert rate == voice.data.sampling_rate
    expected = np.concatenate(
        [voice.say(SpeechRequest(text, "en", "EN")) for text in ("Good morning.", "Yes!")]
    )
    assert len(wave) == len(expected)
    assert np.abs(wave - expected).max() < 1e-4


@pytest.mark.medium
def test_a_sentence_that_cannot_be_read_stops_no_other(speak, voice, tmp_path, capsys):
    out = tmp_path / "out.wav"
    assert (
        speak("--text", "[EN]Yes! [ZH]©ab\n\n[EN]No!", "--stream", "--pause", 0, "--out", out) == 1
    )
    assert re.match("error: sentence 2: empty_text", capsys.readouterr().err)
    pieces = [voice.say(SpeechRequest(text, "en", "EN")) for text in ("Yes!", "No!")]
    assert soundfile.info(out).frames == sum(map(len, pieces))
    with pytest.raises(ValueError, match="empty_text"):
        speak("--text", "[ZH]©", "--out", tmp_path / "none.wav")
    assert not (tmp_path / "none.wav").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lines", "x", "--stream", "--out", "y"], "leave out --stream"),
        (["--lines", "x", "--out", "-"], "give a folder as --out"),
        (["--text", "x", "--out", "y", "--pause", "-1"], "--pause is -1.0"),
        (["--text", "x", "--out", "y", "--sdp-ratio", "2"], "sdp_ratio is 2.0"),
        # the form that older scripts have
        (["--text", "x", "--out", "y", "--sdp_ratio", "3"], "sdp_ratio is 3.0"),
        (
            ["--text", "x", "--language", "EN", "--speaker", "me", "--stream", "--out", "y"],
            "no speaker 'me'",
        ),
        (["--lines", "/nowhere", "--out", "y"], "nowhere"),
    ],
)
def test_impossible_commands(speak, argv, message):
    with pytest.raises((ValueError, OSError), match=message):
        speak(*argv)
