"""Transcripts in all formats: every line that is not blank is usable or rejected with a reason."""

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.config import DataConfig
from data.corpus.ledger import Reject
from data.corpus.prepare import prepare
from data.corpus.transcript import (
    TranscriptLine,
    parse_transcript,
    read_transcript,
    transcript_digest,
)
from data.rejected import Reason
from data.shards.manifest import SPLITS
from data.text.languages import LANGUAGES


def usable(found: list[TranscriptLine | Reject]) -> list[TranscriptLine]:
    assert not [line for line in found if isinstance(line, Reject)]
    return found  # type: ignore[return-value]


def parquet(rows: list[dict], schema: pa.Schema | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    return sink.getvalue()


ROW = {"path": "a.wav", "speaker": "anna", "language": "EN", "text": "One | two."}


def test_plain_lines(tmp_path) -> None:
    path = tmp_path / "esd.list"
    path.write_bytes(
        "\ufeffa.wav|anna|EN|One | two|three.\r\n\r\nb/c.flac|liu|ZH|你好。\r\n".encode()
    )
    transcript = read_transcript(str(path))
    assert [(t.number, t.id, t.speaker, t.language, t.text, t.split) for t in transcript.lines] == [
        (1, "a.wav", "anna", "EN", "One | two|three.", None),
        (3, "b/c.flac", "liu", "ZH", "你好。", None),
    ]
    assert not transcript.rejects
    assert transcript.lines[1].uri == str(tmp_path / "b/c.flac")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_json_lines(end: bytes) -> None:
    other = {"path": "s3://bucket/b.wav", "id": 7, "speaker": 3, "split": "validation"}
    rows = [ROW, ROW | other | {"more": None}]
    content = b"\xef\xbb\xbf" + end.join([*(json.dumps(row).encode() for row in rows), b""])
    first, second = usable(parse_transcript("/x/t.jsonl", content))
    assert (first.number, first.id, first.uri) == (1, "a.wav", "/x/a.wav")
    assert (first.speaker, first.text) == ("anna", "One | two.")
    assert (second.id, second.uri) == ("7", "s3://bucket/b.wav")
    assert (second.speaker, second.split) == ("3", "validation")
    assert first.split is None


def test_parquet() -> None:
    rows = [ROW | {"split": "train", "size": 3.5}, ROW | {"path": "b.wav", "split": None}]
    first, second = usable(parse_transcript("/x/t.parquet", parquet(rows)))
    assert (first.number, first.uri, first.split) == (1, "/x/a.wav", "train")
    assert (second.number, second.split) == (2, None)
    assert json.loads(first.raw) == ROW | {"split": "train"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PAR1 and nothing behind it", "no readable Parquet"),
        (b"", "no readable Parquet"),
        (parquet([{"path": "a.wav", "text": "x"}]), "no column speaker, language"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, content: bytes, named: str) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=named):
        read_transcript(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("transcript", "root", "path", "uri"),
    [
        ("corpus/esd.list", None, "wavs/a.wav", "corpus/wavs/a.wav"),
        ("esd.list", None, "wavs/a.wav", "wavs/a.wav"),
        ("/esd.list", None, "a.wav", "/a.wav"),
        ("s3://bucket/esd.list", None, "wavs/a.wav", "s3://bucket/wavs/a.wav"),
        ("corpus/esd.list", None, "/elsewhere/a.wav", "/elsewhere/a.wav"),
        ("corpus/esd.list", "s3://b", "s3://bucket/a.wav", "s3://bucket/a.wav"),
        ("corpus/esd.list", "s3://b/audio", "wavs/a.wav", "s3://b/audio/wavs/a.wav"),
        ("corpus/esd.list", "audio/", "wavs/../a.wav", "audio/wavs/../a.wav"),
    ],
)
def test_where_recordings_lie(transcript: str, root: str | None, path: str, uri: str) -> None:
    (line,) = usable(parse_transcript(transcript, f"{path}|s|EN|text".encode(), root))
    assert line.uri == uri


def test_a_glob_reads_several_and_ids_tell_them_apart(tmp_path, monkeypatch) -> None:
    for name in ("anna", "ben"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "esd.list").write_text("a.wav|s|EN|text\n\na.wav|s|EN|again")
    (tmp_path / "anna/more.list").write_text("a.wav|s|EN|once more\nb.wav|s|EN|text")
    monkeypatch.chdir(tmp_path.parent)
    for uri in (
        f"{tmp_path}/*/*.list",
        f"{tmp_path.name}/**/*.list",
        f"file://{tmp_path}/*/*.list",
    ):
        transcript = read_transcript(uri)
        assert [line.id for line in transcript.lines] == ["anna/a.wav", "anna/b.wav", "ben/a.wav"]
        for line in transcript.lines:
            assert Path(line.uri).parent == tmp_path / line.id.split("/")[0]

        places = [
            (Path(r.source).relative_to(tmp_path).as_posix(), r.number) for r in transcript.rejects
        ]
        assert places == [("anna/esd.list", 3), ("anna/more.list", 1), ("ben/esd.list", 3)]
        assert {reject.reason for reject in transcript.rejects} == {Reason.DUPLICATE_ID}
    with pytest.raises(ValueError, match=r"no transcript matches .*data\.transcript"):
        read_transcript(f"{tmp_path}/*/none*.list")


LINES = [
    (b"a.wav|s|EN", Reason.MALFORMED_LINE),
    (b"a.wav", Reason.MALFORMED_LINE),
    (b"|s|EN|text", Reason.MALFORMED_LINE),
    (b"a.wav| |EN|text", Reason.MALFORMED_LINE),
    (b"a.wav|s|EN|caf\xe9", Reason.MALFORMED_LINE),
    (b"a\0.wav|s|EN|text", Reason.MALFORMED_LINE),
    (b"a\r.wav|s|EN|text", Reason.MALFORMED_LINE),
    (b"../a.wav|s|EN|text", Reason.PATH_LEAVES_ROOT),
    (b"x/../../a.wav|s|EN|text", Reason.PATH_LEAVES_ROOT),
    (b"a.wav|s|FR|bonjour", Reason.UNKNOWN_LANGUAGE),
    (b"a.wav|s|EN| ", Reason.EMPTY_TEXT),
    (b"first.wav|s|EN|again", Reason.DUPLICATE_ID),
    (b"./first.wav|s|EN|again", Reason.DUPLICATE_ID),
]
JSON_LINES = [
    ({"path": None}, Reason.MALFORMED_LINE),
    ({"speaker": ""}, Reason.MALFORMED_LINE),
    ({"speaker": True}, Reason.MALFORMED_LINE),
    ({"text": ["a"]}, Reason.MALFORMED_LINE),
    ({"text": 5}, Reason.MALFORMED_LINE),
    ({"speaker": "a\nb"}, Reason.MALFORMED_LINE),
    ({"speaker": "\ud800"}, Reason.MALFORMED_LINE),
    ({"text": None}, Reason.EMPTY_TEXT),
    ({"language": None}, Reason.UNKNOWN_LANGUAGE),
    ({"split": "test"}, Reason.UNKNOWN_SPLIT),
    ({"split": "-1"}, Reason.UNKNOWN_SPLIT),
    ({"split": -1}, Reason.MALFORMED_LINE),
    ({"id": "first.wav"}, Reason.DUPLICATE_ID),
]
NOT_JSON = [b"[1, 2]", b"null", b'"text"', b"{", b"[" * 100_000, b'{"path": 1' + b"0" * 5000 + b"}"]


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        *(("t.list", line, reason) for line, reason in LINES),
        *(("t.jsonl", json.dumps(ROW | change).encode(), reason) for change, reason in JSON_LINES),
        *(("t.jsonl", line, Reason.MALFORMED_LINE) for line in NOT_JSON),
    ],
)
def test_rejects_have_line_number_and_reason(
    tmp_path, name: str, line: bytes, reason: Reason
) -> None:
    good = [ROW | {"path": path} for path in ("first.wav", "last.wav")]
    if name == "t.list":
        before, behind = ("|".join(row.values()).encode() for row in good)
    else:
        before, behind = (json.dumps(row).encode() for row in good)
    (tmp_path / name).write_bytes(before + b"\n\n" + line + b"\n" + behind)
    read = read_transcript(str(tmp_path / name))

    (reject,) = read.rejects
    assert (reject.source, reject.number, reject.reason) == (str(tmp_path / name), 3, reason)
    assert [t.id for t in read.lines] == ["first.wav", "last.wav"]


def test_missing_transcript_names_the_key(tmp_path) -> None:
    for uri in ("", str(tmp_path / "none.list"), str(tmp_path)):
        with pytest.raises(ValueError, match=r"data\.transcript"):
            read_transcript(uri)


FIELD = st.text(max_size=8) | st.sampled_from(
    ["a.wav", "b.wav", "../c.wav", "s", *LANGUAGES, *SPLITS, "hello"]
)
LINE = st.lists(FIELD, max_size=6).map(
    lambda fields: "|".join(fields).encode("utf-8", "surrogatepass")
)
VALUE = FIELD | st.none() | st.integers() | st.lists(st.integers(), max_size=2)
KEYS = st.sampled_from(["path", "speaker", "language", "text", "id", "split", "other"])
JSON_LINE = st.dictionaries(KEYS, VALUE).map(lambda row: json.dumps(row).encode())


RARE_ENDS = [
    b"\xe2\x80\xa8",
    b"\xe2\x80\xa9",
    b"\xc2\x85",
    b"\x0b",
    b"\x0c",
    b"\x1c",
    b"\x1d",
    b"\x1e",
]
ENDS = [b"\n", b"\r\n", b"\r", *RARE_ENDS[:4]]
ENCODED = st.sampled_from(["utf-8", "gb18030", "cp932", "utf-16-le", "cp1252"])
RANDOM_LINE = st.binary(max_size=20) | st.tuples(st.text(max_size=12), ENCODED).map(
    lambda pair: pair[0].encode(pair[1], errors="replace")
)


@given(
    st.lists(LINE | JSON_LINE | RANDOM_LINE, max_size=30),
    st.lists(st.sampled_from(ENDS), min_size=30, max_size=30),
    st.booleans(),
    st.sampled_from(["esd.list", "esd.jsonl"]),
)
def test_kept_and_rejected_are_all_lines(
    tmp_path_factory, lines: list[bytes], ends: list[bytes], bom: bool, name: str
) -> None:
    written = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    content = (b"\xef\xbb\xbf" if bom else b"") + written
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        parsed = read_transcript(str(path))
    except ValueError as error:
        # or two fields a line, the first a recording: that is a layout without languages
        assert re.search("it seems to be UTF-|nothing says the language", str(error))
        return
    numbers = [t.number for t in parsed.lines] + [r.number for r in parsed.rejects]
    mixed = b"\n" in content and b"\r" in content.replace(b"\r\n", b"")
    rare = name == "esd.list" and any(end in content for end in RARE_ENDS)
    if not mixed and not rare:
        found = re.split(rb"\r{1,3}\n|\n|\r", content)
        marks = re.compile(rb"^(?:\xef\xbb\xbf)+")
        expected = [n for n, raw in enumerate(found, 1) if marks.sub(b"", raw).strip()]
        assert sorted(numbers) == expected
    assert len(set(numbers)) == parsed.count == len(parsed.lines) + len(parsed.rejects)
    assert len({t.id for t in parsed.lines}) == len(parsed.lines)
    for line in parsed.lines:
        assert line.language in LANGUAGES
        assert line.split in (None, *SPLITS)
        assert line.text and line.speaker and line.id
        (line.text + line.speaker + line.id + line.uri).encode()


GOOD = (
    b"1.wav|anna|en|Good day.",
    b"2.wav|anna|zh|\xe4\xbd\xa0\xe5\xa5\xbd",
    b"3.wav|anna|JA|Yes.",
)


@pytest.mark.parametrize("end", ENDS)
def test_every_line_end_ends_a_line(tmp_path, end) -> None:
    path = tmp_path / "esd.list"
    path.write_bytes(end.join(GOOD))
    parsed = read_transcript(str(path))
    assert [(line.id, line.language) for line in parsed.lines] == [
        ("1.wav", "EN"),
        ("2.wav", "ZH"),
        ("3.wav", "JP"),
    ]


def test_marks_in_mid_file_and_names_that_look_alike(tmp_path) -> None:
    path = tmp_path / "esd.list"
    rows = [
        "\ufeff1.wav|Jos\u00e9|EN|One.",
        "\ufeff2.wav|Jose\u0301|en|Two.",
        "3.wav|Jo\u200bs\u00e9|en_US|Three.",
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    parsed = read_transcript(str(path))
    assert {line.speaker for line in parsed.lines} == {"Jos\u00e9"}
    assert [line.id for line in parsed.lines] == ["1.wav", "2.wav", "3.wav"]


CASES = Path(__file__).with_name("cases")


@pytest.mark.parametrize(
    ("name", "languages", "told"),
    [
        ("g_win.list", ["EN", "EN"], "is a path of a Windows machine"),
        ("h_ljs.list", [], "if it is an LJSpeech list, set data.layout: ljspeech"),
        ("i_gsv.list", ["ZH", "JP", "EN"], ""),
        ("j_cleaned.list", [], "of a list that the reference has cleaned"),
    ],
)
def test_lists_of_others(name, languages, told) -> None:
    parsed = read_transcript(str(CASES / name))
    assert [line.language for line in parsed.lines] == languages
    assert bool(told) == bool(parsed.rejects)
    assert all(told in reject.detail for reject in parsed.rejects)
    if name == "g_win.list":
        assert [line.id for line in parsed.lines] == ["wavs/1.flac", "wavs/2.flac"]


@pytest.mark.parametrize(
    ("name", "encoding"), [("d_gbk", "GBK"), ("e_sjis", "Shift-JIS"), ("f_utf16", "UTF-16")]
)
def test_a_list_in_another_encoding_is_refused_by_its_name(name, encoding) -> None:
    with pytest.raises(ValueError, match=f"it seems to be {encoding}"):
        read_transcript(str(CASES / f"{name}.list"), max_foreign=0.05)


@pytest.mark.parametrize("name", ["anna [v2].list", "a*b.list", "what?.list"])
def test_a_transcript_that_is_there_is_no_glob(tmp_path, name) -> None:
    for other in ("anna v.list", "axb.list", "whatx.list"):
        (tmp_path / other).write_text("other.wav|a|EN|Other.\n", encoding="utf-8")
    (tmp_path / name).write_text("ours.wav|a|EN|Ours.\n", encoding="utf-8")
    transcript = read_transcript(str(tmp_path / name))
    assert [(line.id, line.uri) for line in transcript.lines] == [
        ("ours.wav", str(tmp_path / "ours.wav"))
    ]


def test_a_glob_below_folders_that_look_like_globs(tmp_path) -> None:
    for folder in ("anna [v2]/a*b", "anna v/axb"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("1.list", "2.list"):
            content = f"{folder}/{name}.wav|a|EN|Hi.\n"
            (tmp_path / folder / name).write_text(content, encoding="utf-8")
    for pattern in ("anna [v2]/a*b/*.list", "anna [v2]/*/*.list", "anna [v2]/a*b/[12].list"):
        found = read_transcript(str(tmp_path / pattern)).lines
        assert [line.source for line in found] == [
            str(tmp_path / f"anna [v2]/a*b/{number}.list") for number in (1, 2)
        ]
    with pytest.raises(ValueError, match="no transcript matches"):
        read_transcript(str(tmp_path / "anna [v2]/missing.list"))


ZH, JP, EN = "早上好，今天下雨。", "おはようございます。", "Café, naïve"
ENCODINGS = [
    ("ZH", ZH, "gbk", "GBK"),
    ("ZH", ZH, "gb18030", "GBK"),
    ("ZH", ZH, "big5", "Big5"),
    ("JP", JP, "cp932", "Shift-JIS"),
    ("JP", JP, "euc_jp", "EUC-JP"),
    ("EN", EN, "latin-1", "Windows-1252"),
    ("EN", EN, "utf-16", "UTF-16"),
    ("EN", EN, "utf-16-le", "UTF-16"),
    ("ZH", ZH, "utf-16-be", "UTF-16"),
    ("JP", JP, "utf-32", "UTF-32"),
]


@pytest.mark.parametrize("lines", [1, 3])
@pytest.mark.parametrize("name", ["esd.list", "esd.jsonl"])
@pytest.mark.parametrize(("language", "text", "encoding", "named"), ENCODINGS)
def test_another_encoding_is_named(
    tmp_path, lines: int, name: str, language: str, text: str, encoding: str, named: str
) -> None:
    """With the file and the first line of it, and before anything else is looked at."""
    rows = [
        {"path": f"{number}.wav", "speaker": "a", "language": language, "text": text}
        for number in range(lines)
    ]
    if name.endswith("jsonl"):
        written = [json.dumps(row, ensure_ascii=False) for row in rows]
    else:
        written = ["|".join(row.values()) for row in rows]
    (tmp_path / name).write_bytes("\n".join(written).encode(encoding))
    with pytest.raises(ValueError, match=rf"{name}:1: not UTF-8.* seems to be {named}") as caught:
        prepare(DataConfig(transcript=str(tmp_path / name), shards=str(tmp_path / "shards")))
    assert str(caught.value).count("\n") == 0
    assert not (tmp_path / "shards").exists()


def test_single_lines_in_another_encoding_are_rejected_with_its_name(tmp_path) -> None:
    lines = [f"{number}.wav|mei|ZH|{ZH}".encode() for number in range(40)]
    lines[30] = f"30.wav|mei|ZH|{ZH}".encode("gbk")
    (tmp_path / "esd.list").write_bytes(b"\n".join(lines))
    transcript = read_transcript(str(tmp_path / "esd.list"), max_foreign=0.05)
    assert len(transcript.lines) == 39
    (reject,) = transcript.rejects
    assert (reject.number, reject.reason) == (31, Reason.MALFORMED_LINE)
    assert "seems to be GBK" in reject.detail


def test_escape_sequences_are_no_text() -> None:
    content = f"a.wav|hana|JP|{JP}".encode("iso2022_jp")
    (reject,) = parse_transcript("t.list", content)
    assert isinstance(reject, Reject)
    assert "ISO-2022-JP" in reject.detail


def test_a_digest_is_of_what_the_files_hold(tmp_path) -> None:
    first, moved = tmp_path / "esd.list", tmp_path / "moved.list"
    first.write_text(f"a.wav|mei|ZH|{ZH}", encoding="utf-8")
    moved.write_bytes(first.read_bytes())
    digest = read_transcript(str(first)).digest
    assert digest == transcript_digest(str(first)) == transcript_digest(str(moved))
    moved.write_text("b.wav|mei|ZH|x")
    assert transcript_digest(str(moved)) != digest


@pytest.mark.parametrize(
    ("place", "line", "recording", "audio_root", "language"),
    [
        ("sbv2/Data/voice/esd.list", "v0.wav|voice|JP|はい。", "raw/v0.wav", "raw", "JP"),
        ("sbv2/Data/voice/esd.list", "v0.wav|voice|JP|はい。", "wavs/v0.wav", "wavs", "JP"),
        (
            "melo/data/example/metadata.list",
            "data/example/wavs/000.wav|EN-default|EN|Yes.",
            "wavs/000.wav",
            "../..",
            "EN",
        ),
        ("gptsovits/a.list", "{folder}/slicer/z0.wav|s|zh|好。", "slicer/z0.wav", None, "ZH"),
        ("gptsovits/a.list", "{folder}/slicer/j0.wav|s|JA|はい。", "slicer/j0.wav", None, "JP"),
    ],
)
def test_lists_of_other_trainers_need_audio_root_at_most(
    tmp_path, place: str, line: str, recording: str, audio_root: str | None, language: str
) -> None:
    path = tmp_path / place
    audio = path.parent / recording
    audio.parent.mkdir(parents=True)
    audio.write_bytes(b"")
    path.write_text(line.format(folder=path.parent) + "\n", encoding="utf-8")
    root = None if audio_root is None else str(path.parent / audio_root)
    found = read_transcript(str(path), root)
    assert not found.rejects
    assert Path(found.lines[0].uri).resolve() == audio
    assert found.lines[0].language == language
