"""Transcripts: every line that is not blank is usable or rejected with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.config import LANGUAGES
from data.ledger import Reason
from data.transcript import parse_transcript, read_transcript


def test_plain_lines(tmp_path) -> None:
    path = tmp_path / "esd.list"
    path.write_bytes("\ufeffa.wav|anna|EN|One | two|three.\r\n\r\nb/c.flac|liu|ZH|你好。\r\n".encode())
    transcript = read_transcript(str(path))
    assert [(t.number, t.path, t.speaker, t.language, t.text) for t in transcript.lines] == [
        (1, "a.wav", "anna", "EN", "One | two|three."),
        (3, "b/c.flac", "liu", "ZH", "你好。"),
    ]
    assert not transcript.rejects
    assert transcript.audio_uri(transcript.lines[1]) == str(tmp_path / "b/c.flac")


@pytest.mark.parametrize(
    ("transcript", "path", "uri"),
    [
        ("corpus/esd.list", "wavs/a.wav", "corpus/wavs/a.wav"),
        ("esd.list", "wavs/a.wav", "wavs/a.wav"),
        ("s3://bucket/esd.list", "wavs/a.wav", "s3://bucket/wavs/a.wav"),
        ("corpus/esd.list", "/elsewhere/a.wav", "/elsewhere/a.wav"),
        ("corpus/esd.list", "s3://bucket/a.wav", "s3://bucket/a.wav"),
    ],
)
def test_where_recordings_lie(transcript: str, path: str, uri: str) -> None:
    parsed = parse_transcript(transcript, f"{path}|s|EN|text".encode())
    assert parsed.audio_uri(parsed.lines[0]) == uri


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a.wav|s|EN", Reason.MALFORMED_LINE),
        (b"a.wav", Reason.MALFORMED_LINE),
        (b"|s|EN|text", Reason.MALFORMED_LINE),
        (b"a.wav| |EN|text", Reason.MALFORMED_LINE),
        (b"a.wav|s|EN|caf\xe9", Reason.MALFORMED_LINE),
        (b"a\0.wav|s|EN|text", Reason.MALFORMED_LINE),
        (b"a.wav|s|FR|bonjour", Reason.UNKNOWN_LANGUAGE),
        (b"a.wav|s|EN| ", Reason.EMPTY_TEXT),
        (b"first.wav|s|EN|again", Reason.DUPLICATE_ID),
    ],
)
def test_rejects_have_line_number_and_reason(line: bytes, reason: Reason) -> None:
    parsed = parse_transcript("esd.list", b"first.wav|s|EN|text\n\n" + line + b"\nlast.wav|s|EN|text")
    (reject,) = parsed.rejects
    assert (reject.number, reject.reason) == (3, reason)
    assert [t.path for t in parsed.lines] == ["first.wav", "last.wav"]


def test_missing_transcript_names_the_key(tmp_path) -> None:
    for uri in ("", str(tmp_path / "none.list"), str(tmp_path)):
        with pytest.raises(ValueError, match=r"data\.transcript"):
            read_transcript(uri)


FIELD = st.text(max_size=8) | st.sampled_from(["a.wav", "b.wav", "s", *LANGUAGES, "hello"])
LINE = st.lists(FIELD, max_size=6).map(lambda fields: "|".join(fields).encode("utf-8", "surrogatepass"))


@given(st.lists(LINE | st.binary(max_size=20), max_size=30), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_kept_and_rejected_are_all_lines(lines: list[bytes], end: bytes, bom: bool) -> None:
    content = (b"\xef\xbb\xbf" if bom else b"") + end.join(lines)
    parsed = parse_transcript("esd.list", content)
    expected = [i for i, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if raw.strip()]
    assert sorted([t.number for t in parsed.lines] + [r.number for r in parsed.rejects]) == expected
    assert parsed.count == len(expected)
    assert len({t.path for t in parsed.lines}) == len(parsed.lines)
    assert all(t.language in LANGUAGES and t.text and t.speaker and t.path for t in parsed.lines)
