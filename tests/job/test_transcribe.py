"""job.transcribe as users run it: long recordings, a kill, a transcript to check, bad input."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from data.corpus.transcript import read_transcript
from tests.data.transcribe.recordings import (
    CORPUS,
    LINES,
    write_recogniser,
    write_recording,
)
from tests.data.transcribe.tiny_asr import write_tiny_whisper
from tests.job.conftest import Command, kill

ENGLISH = range(36, 54)  # lines of the demo corpus


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def journal(out: Path) -> list[dict]:
    return [row for path in sorted(out.glob("journal/*.jsonl")) for row in rows(path)]


def wait_for(process: subprocess.Popen, out: Path, heard: int, timeout: float = 200) -> None:
    deadline = time.monotonic() + timeout
    while sum("heard" in row for row in journal(out)) < heard:
        assert process.poll() is None, "the command ended early"
        assert time.monotonic() < deadline, f"nothing was heard after {timeout} s"
        time.sleep(0.05)


def check_books(out: Path, recordings: int) -> None:
    """Every second is kept or dropped, and job.prepare reads every line."""
    ledger = rows(out / "ledger.jsonl")
    assert len(ledger) == recordings
    for row in ledger:
        assert row["kept"] + sum(row["dropped"].values()) == pytest.approx(row["seconds"], abs=1e-4)
    transcript = read_transcript(str(out / "transcript.list"))
    assert transcript.rejects == []
    assert len(transcript.lines) == sum(row["kept_slices"] for row in ledger)
    assert all(Path(line.uri).is_file() for line in transcript.lines)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(command: Command, call, ray_local, tmp_path):
    recordings, out = tmp_path / "recordings", tmp_path / "out"
    texts = {}
    for name, numbers in (("anna/one.flac", ENGLISH[:9]), ("ben/two.flac", ENGLISH[9:])):
        write_recording(recordings / name, numbers)
        texts |= {f"{name}/{n:05}.wav": LINES[line][3] for n, line in enumerate(numbers, start=1)}
    (recordings / "ben/broken.wav").write_bytes(b"RIFF")
    argv = ["--recordings", str(recordings), "--out", str(out), "--data.asr.batch", "2"]
    argv += ["--data.asr.command", write_recogniser(tmp_path, texts, pause=0.7)]
    process = command.start("job.transcribe", *argv)
    try:
        wait_for(process, out, heard=2)
    finally:
        kill(process)
    before = [row["heard"] for row in journal(out) if "heard" in row]
    assert 2 <= len(before) < len(texts), "killed in the middle"
    log = tmp_path / "heard.log"
    log.unlink()

    done = call("job.transcribe", *argv)
    assert done.returncode == 0, done.stderr
    again = {line.split("/wavs/")[1] for line in log.read_text().splitlines()}
    assert not again & {f"{each['name']}/{each['number']:05}.wav" for each in before}
    assert len(again) + len(before) == len(texts)
    check_books(out, recordings=3)
    said = {line.uri.split("/wavs/")[1]: line.text for line in lines_of(out)}
    assert said == texts
    assert {line.speaker for line in lines_of(out)} == {"anna", "ben"}
    assert "not read ben/broken.wav: unreadable_audio" in done.stdout
    assert f"python -m job.prepare --data.transcript {out / 'transcript.list'}" in done.stdout

    # all is done: the same command hears nothing again
    log.unlink()
    assert call("job.transcribe", *argv).returncode == 0
    assert not log.exists()
    # other settings are not mixed in
    done = call("job.transcribe", *argv, "--data.asr.pause", "0.3")
    assert done.returncode == 2
    assert "data.asr.pause was 0.5, is 0.3): set them back" in done.stderr


def lines_of(out: Path) -> list:
    return list(read_transcript(str(out / "transcript.list")).lines)


def test_swapped_lines_of_a_transcript_are_both_named(call, ray_local, tmp_path):
    said = [line[3] for line in LINES]
    swapped = list(said)
    swapped[38], swapped[44] = said[44], said[38]
    transcript = tmp_path / "swapped.list"
    listed = (f"{CORPUS / LINES[n][0]}|{LINES[n][1]}|{LINES[n][2]}|{swapped[n]}\n" for n in ENGLISH)
    transcript.write_text("".join(listed), encoding="utf-8")
    command = write_recogniser(tmp_path, {LINES[n][0]: said[n].lower() for n in ENGLISH})
    out = tmp_path / "out"
    done = call(
        *("job.transcribe", "--check", transcript, "--out", out, "--data.asr.command", command)
    )
    assert done.returncode == 0, done.stderr
    assert "18 lines: 16 are what is heard, 2 are not" in done.stdout
    named = {row["line"]: row["fits"] for row in rows(out / "checked.jsonl") if row["suspicious"]}
    assert named == {3: f"{transcript}:9", 9: f"{transcript}:3"}
    for line in named:
        assert f"{transcript}:{line}: " in done.stdout
    kept = read_transcript(str(out / "transcript.jsonl"))
    assert [line.text for line in kept.lines] == [said[n] for n in ENGLISH if n not in (38, 44)]


def test_a_whisper_by_path_on_a_long_recording(call, ray_local, tmp_path):
    """It takes an actor with a GPU of Ray's where torch sees none: it says so, and goes on."""
    write_tiny_whisper(tmp_path / "whisper", hears="en")
    write_recording(tmp_path / "recordings/one.flac", ENGLISH[:3])
    out = tmp_path / "out"
    done = call(
        *("job.transcribe", "--recordings", tmp_path / "recordings", "--out", out),
        *("--data.asr.model", tmp_path / "whisper", "--data.asr.speaker", "file"),
    )
    assert done.returncode == 0, done.stderr
    check_books(out, recordings=1)
    assert [(line.speaker, line.language) for line in lines_of(out)] == [("one", "EN")] * 3
    assert all(0 < row["confidence"] < 1 for row in rows(out / "slices.jsonl"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "give --recordings FOLDER, or --check TRANSCRIPT"),
        (["--recordings", "{tmp}"], "give --out FOLDER"),
        (["--recordings", "{tmp}/none", "--out", "{tmp}/out"], "there is no such folder"),
        (["--recordings", "{tmp}/texts", "--out", "{tmp}/out"], "holds no recording"),
        (["--recordings", "{tmp}/wavs", "--out", "{tmp}/texts"], "is not empty (a.txt)"),
        (["--recordings", "{tmp}/wavs", "--out", "{tmp}/texts/a.txt"], "is a file"),
        (
            [*("--recordings", "{tmp}/wavs", "--out", "{tmp}/out"), "--data.asr.max_seconds", "25"],
            "slices that long would be rejected, as data.max_seconds is 20",
        ),
        (["--check", "{tmp}/none.list", "--out", "{tmp}/out"], "there is no transcript"),
        (["--check", "{tmp}/texts/a.txt", "--out", "{tmp}/out"], "has no line that can be used"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(call, tmp_path, given, told):
    for name in ("texts/a.txt", "wavs/a.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    argv = [word.format(tmp=tmp_path) for word in given]
    done = call("job.transcribe", *argv, "--data.asr.command", "true")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model", "{tmp}/none", "data.asr.model is "),
        ("model", "{tmp}/wavs", "the folder has no config.json"),
        ("model", "random", "hears nothing"),
        ("command", "no-such-program --x", "there is no program 'no-such-program' here"),
        ("language", "klingon", "give one of ZH, JP, EN"),
        ("speaker_pattern", "a(", "no regular expression"),
        ("speaker_pattern", "abc", "it has 0 groups"),
        ("max_seconds", "3", "must be at least twice"),
        ("gpus_per_actor", "0", "give a number above 0 to 1"),
    ],
)
def test_settings_that_cannot_be(call, tmp_path, key, value, told):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs/a.wav").write_bytes(b"x")
    done = call(
        *("job.transcribe", "--recordings", tmp_path / "wavs", "--out", tmp_path / "out"),
        *(f"--data.asr.{key}", value.format(tmp=tmp_path)),
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


GPUS = 1  # of Ray, which torch does not see
