"""The command that speaks: one text, many lines, and long texts sentence by sentence."""

import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile

from data.files import read_file
from job.synthesize import main
from job.voice.lines import Line, read_lines
from job.voice.voice import SpeechRequest, Voice, speaker_row
from job.voice.wave import WaveWriter, endings
from tests.job.voices import SAID, tiny_checkpoint

pytestmark = pytest.mark.medium  # small voices speak, which takes seconds together

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
def test_characters_that_are_not_spoken_are_told(voice, caplog):
    voice.read(SpeechRequest("Yes はい. [ZH]好ж。", "en", "EN"))
    assert caplog.messages == ["no rule reads はいж of 'Yes はい. [ZH]好ж。': not spoken"]
    caplog.clear()
    voice.read(SpeechRequest("Yes.", "en", "EN"))
    assert not caplog.messages


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
        speak("--text", "[EN]Yes! [ZH]カナ\n\n[EN]No!", "--stream", "--pause", 0, "--out", out) == 1
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


SAY = ["--text", "Yes.", "--language", "EN"]


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        ("wav", "PCM_16"),
        ("WAV", "PCM_16"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("mp3", "MPEG_LAYER_III"),
        ("aiff", "PCM_16"),
        ("aif", "PCM_16"),
        ("caf", "PCM_16"),
        ("au", "PCM_16"),
        ("w64", "PCM_16"),
    ],
)
def test_the_ending_names_the_format(speak, voice, tmp_path, ending, subtype):
    out = tmp_path / f"new folder/a [b].{ending}"
    assert speak(*SAY, "--out", out) == 0
    found = soundfile.info(out)
    assert (found.subtype, found.samplerate) == (subtype, voice.data.sampling_rate)
    assert found.frames >= len(voice.say(SpeechRequest("Yes.", "en", "EN")))


def test_all_formats_that_can_be_written_can_be_read(tmp_path):
    wave = np.zeros(4000, np.float32)
    for ending in endings().keys() - {"opus"}:
        with WaveWriter(str(tmp_path / f"x.{ending}"), 16000) as writer:
            writer.write(wave)
            writer.write(wave)
        found = soundfile.info(tmp_path / f"x.{ending}")
        assert (found.samplerate, found.channels) == (16000, 1), ending
    with pytest.raises(ValueError, match=r"OPUS.* does not have .*44100 Hz"):
        WaveWriter(str(tmp_path / "x.opus"), 44100)


def test_sounds_go_to_stores(speak, bucket, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines").write_text("Yes.\nNo.\n")
    assert speak(*SAY, "--out", f"{bucket}/a/x.ogg") == 0
    argv = ["--lines", tmp_path / "lines", "--language", "EN", "--out", f"{bucket}/b"]
    assert speak(*argv) == 0
    stored = ("a/x.ogg", "b/00001.wav", "b/00002.wav")
    assert all(soundfile.info(io.BytesIO(read_file(f"{bucket}/{each}"))).frames for each in stored)
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


@pytest.fixture
def refused(speak, monkeypatch, tmp_path):
    """Return by which line a command is refused before the networks are loaded."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the networks were loaded")

    def run(*argv: object) -> str:
        monkeypatch.setattr(Voice, "load", loaded)
        with pytest.raises((ValueError, OSError)) as caught:
            speak(*argv)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        return str(caught.value)

    return run


def test_places_that_cannot_be_written(refused, checkpoint, tmp_path):
    (tmp_path / "folder").mkdir()
    told = {
        "": "--out",
        "x": "endings of sounds: .aif, .*flac, .*mp3, .*ogg, .*wav",
        "x.docx": "endings of sounds",
        ".wav": "endings of sounds",
        f"{tmp_path}/folder": "--out .*folder is a folder",
        f"{tmp_path}/x.wav/": "is a folder",
        "/dev/null/x.wav": "cannot be written: Not a directory",
        "/proc/x.wav": "cannot be written",
        "~nobody_here/x.wav": "no home folder ~nobody_here",
        "C:\\x.wav": "of Windows",
        "s3:/x.wav": "two slashes",
        "https://127.0.0.1/x.wav": "cannot be written to",
        f"{checkpoint}/x.wav": "lies in the checkpoint",
        f"{checkpoint}/more/x.wav": "lies in the checkpoint",
    }
    for out, message in told.items():
        line = refused(*SAY, f"--out={out}")
        assert re.search(message, line), (out, line)
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--length-scale", "1000"], "length_scale is 1000.0: give a factor from 0.01 to 100"),
        (["--length-scale", "nan"], "length_scale is nan"),
        (["--length-scale", "0"], "length_scale is 0"),
        (["--length-scale=-1"], "length_scale is -1"),
        (["--noise-scale", "inf"], "noise_scale is inf: give a number from 0 to 10"),
        (["--noise-scale-w", "1e9"], "noise_scale_w is 1000000000.0"),
        (["--sdp-ratio", "nan"], "sdp_ratio is nan"),
        (["--pause", "inf"], "--pause is inf"),
        (["--batch", "100000"], "--batch is 100000"),
        (["--max-seconds", "0"], "--max-seconds is 0"),
        (["--device", "foo"], "--device is 'foo': give cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "--device is cuda:99"),
        (["--device", "mps"], "--device is mps"),
        (["--speaker", "EN"], "no speaker 'EN'.*this voice has: en, jp, zh"),
        (["--language", "EN", "--text", "  "], "nothing to say"),
    ],
)
def test_requests_that_are_refused(refused, tmp_path, argv, message):
    assert re.search(message, refused(*SAY, "--out", tmp_path / "x.wav", *argv))


def test_speakers_are_told(checkpoint, tmp_path):
    argv = ["--checkpoint", str(checkpoint), "--device", "cpu", "--out", f"{tmp_path}/x.wav", *SAY]
    with pytest.raises(ValueError, match=r"no speaker is given \(this voice has: en, jp, zh\)"):
        main(argv)
    many = {f"speaker{number:03}": number for number in range(1000)}
    with pytest.raises(ValueError, match=r"did you mean speaker099\?.*speaker009 and 990 more"):
        speaker_row("speeker099", many)


def test_what_is_too_long_is_refused_before_memory_is_taken(voice, monkeypatch):
    monkeypatch.setattr(voice, "max_seconds", 0.5)
    long = SpeechRequest("Good morning. " * 3, "en", "EN", length_scale=100)
    with pytest.raises(ValueError, match=r"0\.5 s are spoken.*--stream.*length_scale below 100"):
        voice.say(long)
    # neither the text nor its features are read
    monkeypatch.setattr(voice, "reader", None)
    with pytest.raises(ValueError, match="--max-seconds"):
        voice.say(SpeechRequest("x" * 100, "en", "EN"))


def test_a_line_that_is_too_long_stops_no_other(speak, tmp_path, capsys):
    rows = ["Yes.", json.dumps({"text": "Good morning.", "length_scale": 100}), "No."]
    (tmp_path / "lines").write_text("\n".join(rows), encoding="utf-8")
    argv = ["--lines", tmp_path / "lines", "--language", "EN", "--out", tmp_path / "out"]
    assert speak(*argv, "--max-seconds", "5") == 1
    assert "lines:2: the text would take" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00001.wav", "00003.wav"}


def test_files_of_lines_that_are_none(tmp_path):
    deep = '{"text": ' + "[" * 100_000
    (tmp_path / "lines").write_text(f"\ufeffHi.\n{deep}\n", encoding="utf-8")
    lines, mistakes = read_lines(str(tmp_path / "lines"), DEFAULT)
    assert [line.request.text for line in lines] == ["Hi."]
    assert "nested too deeply" in mistakes[2]
    for content in ("Hi.\n你好。".encode("gbk"), b"\n" + bytes(range(128, 256))):
        (tmp_path / "lines").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{tmp_path}/lines:2 is not UTF-8"):
            read_lines(str(tmp_path / "lines"), DEFAULT)
