"""A transcript against what is heard: errors per line, and lines that are swapped."""

import pytest

from data.config import DataConfig
from data.corpus.transcript import Transcript, read_transcript
from data.transcribe.checking import Comparison, check_lines, report, suspects
from data.transcribe.work import Done

CFG = DataConfig()


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison(CFG)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("said", "heard", "language", "error"),
    [
        ("Good morning!", "good morning", "EN", 0),
        ("It's fine, isn't it?", "It is fine, isn't it", "EN", 2 / 4),
        ("This book has 365 pages.", "this book has 365 pages", "EN", 0),
        ("It costs 25 dollars.", "It costs twenty-five dollars.", "EN", 0),
        ("今天天气很好。", "今天天气真好", "ZH", 1 / 6),
        ("一共二十五块。", "一共25块", "ZH", 0),
        ("おはよう。", "", "JP", 1),
        ("Yes.", "no not at all", "EN", 4),
    ],
)
def test_errors(comparison, said, heard, language, error):
    assert comparison.error(said, heard, language) == pytest.approx(error)


def checked(tmp_path, heard: dict[int, str]) -> tuple[Transcript, Done]:
    texts = ["Which bus goes to the station?", "The rain is getting heavier!", "I am here."]
    path = tmp_path / "x.list"
    path.write_text("".join(f"{n}.wav|anna|EN|{text}\n" for n, text in enumerate(texts)))
    transcript = read_transcript(str(path))
    done = Done({line.uri: "1" for line in transcript.lines})
    for number, line in enumerate(transcript.lines):
        row = {"name": line.uri, "version": "1", "number": 0, "language": "en", "problem": None}
        if number not in heard:
            row["problem"] = ["missing_audio", "there is none"]
        done.add({"heard": row | {"text": heard.get(number, ""), "confidence": None}})
    return transcript, done


def test_swapped_lines_are_both_named(tmp_path):
    transcript, done = checked(
        tmp_path,
        {0: "the rain is getting heavier", 1: "which bus goes to a station", 2: "I am here"},
    )
    told = report(transcript, suspects(check_lines(transcript, done, CFG), CFG), 0.5)
    assert "1 are what is heard, 2 are not" in told
    lines = told.splitlines()[1:]
    assert any(
        "x.list:1: " in line and line.endswith("the text of " + lines_of(transcript, 1))
        for line in lines
    )
    assert any(
        "x.list:2: " in line and line.endswith("the text of " + lines_of(transcript, 0))
        for line in lines
    )


def lines_of(transcript: Transcript, index: int) -> str:
    line = transcript.lines[index]
    return f"{line.source}:{line.number}"


def test_what_cannot_be_heard_is_named(tmp_path):
    transcript, done = checked(tmp_path, {0: "which bus goes to the station", 2: "I am here"})
    told = report(transcript, suspects(check_lines(transcript, done, CFG), CFG), 0.5)
    assert "x.list:2: missing_audio: there is none" in told
