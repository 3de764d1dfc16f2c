"""Bad input: every line ends in the ledger, or the run is refused and told what to change.

The preparation's own functions, without Ray: read_transcript, Surveyor, judge, write_rows.
"""

import contextlib
import io
import json
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data.audio.recording import read_audio
from data.config import BertConfig, DataConfig
from data.corpus.features import BertActor, shard_block
from data.corpus.ledger import Ledger
from data.corpus.recipe import make_recipe
from data.corpus.survey import Surveyor, judge
from data.corpus.tables.lines import Lines
from data.corpus.tables.records import LINE, circumstances
from data.corpus.tables.rows import Rows
from data.corpus.tables.shard_rows import HeldRows
from data.corpus.tables.surveyed import Surveyed
from data.corpus.transcript import read_transcript
from data.corpus.writer import write_rows
from data.files import UnreachableError, put_file
from data.shards.manifest import known_speakers
from data.shards.shard import list_shards
from data.text.languages import LANGUAGES
from tests.data.corpus.without_ray import survey_here

RATE = 44100
HELLO = "Good morning, everybody."


def tone(seconds: float = 1.5, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def audio(
    wav: np.ndarray, rate: int = RATE, fmt: str = "WAV", subtype: str | None = "PCM_16"
) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, wav, rate, format=fmt, subtype=subtype)
    return sink.getvalue()


def holding(value: float) -> np.ndarray:
    wav = tone()
    wav[RATE] = value
    return wav


GOOD = audio(tone())
# name -> content of the recording, and what becomes of a line that names it: a reason, or "kept"
RECORDINGS: dict[str, tuple[bytes, str]] = {
    "zero_bytes": (b"", "unreadable_audio"),
    "a_text": (b"no audio at all", "unreadable_audio"),
    "header_alone": (GOOD[:44], "truncated_audio"),
    "half_a_header": (GOOD[:20], "unreadable_audio"),
    "wav_cut_off": (GOOD[: len(GOOD) * 2 // 3], "truncated_audio"),
    "flac_cut_off": (audio(tone(), fmt="FLAC")[:3000], "unreadable_audio"),
    "8_bit": (audio(tone(), subtype="PCM_U8"), "kept"),
    "24_bit": (audio(tone(), subtype="PCM_24"), "kept"),
    "float": (audio(tone(), subtype="FLOAT"), "kept"),
    "louder_than_full_scale": (audio(tone(level=7), subtype="FLOAT"), "kept"),
    "stereo": (audio(np.stack([tone(), tone(level=0.1)], 1)), "kept"),
    "one_channel_cancels_the_other": (audio(np.stack([tone(), -tone()], 1)), "channels_cancel"),
    "six_channels": (audio(np.stack([tone()] * 6, 1)), "kept"),
    "8_khz": (audio(tone(rate=8000), 8000), "kept"),
    "96_khz": (audio(tone(rate=96000), 96000), "kept"),
    "mp3": (audio(tone(), fmt="MP3", subtype=None), "kept"),
    "vorbis": (audio(tone(), fmt="OGG", subtype="VORBIS"), "kept"),
    "a_tenth_of_a_second": (audio(tone(0.1)), "too_short"),
    "ten_minutes": (audio(tone(600, 8000), 8000), "too_long"),
    "silence": (audio(np.zeros(RATE)), "silent"),
    "constant": (audio(np.full(RATE, 0.5)), "silent"),
    "nan": (audio(holding(np.nan), subtype="FLOAT"), "not_finite"),
    "infinite": (audio(holding(np.inf), subtype="FLOAT"), "not_finite"),
    "too_fast": (audio(tone(0.41)), "too_many_phones"),
}
# what follows the name of a good recording, and what becomes of it
TEXTS: dict[str, tuple[bytes, str]] = {
    "plain": (f"anna|EN|{HELLO}".encode(), "kept"),
    "bars": (b"anna|EN|Well | done, he's | here.", "kept"),
    "crlf": (b"anna|EN|Good morning.\r", "kept"),
    "empty": (b"anna|EN|", "empty_text"),
    "blanks": (" anna | EN | \u3000 ".encode(), "empty_text"),
    "emoji": ("anna|EN|😀😀 🎉".encode(), "empty_text"),
    "emoji_zh": ("mei|ZH|😀".encode(), "empty_text"),
    "zero_width": ("anna|EN|\u200b".encode(), "empty_text"),
    "chinese_as_english": ("mei|EN|早上好，今天下雨。".encode(), "empty_text"),
    "english_as_chinese": (f"anna|ZH|{HELLO}".encode(), "empty_text"),
    "japanese_as_chinese": ("hana|ZH|おはよう".encode(), "empty_text"),
    "korean_as_japanese": ("kim|JP|안녕".encode(), "empty_text"),
    "latin_in_chinese": ("mei|ZH|你好 hello 你好".encode(), "kept"),
    "latin_in_japanese": ("hana|JP|おはようございます hello".encode(), "kept"),
    "latin_alone_in_japanese": (b"hana|JP|hello", "empty_text"),
    "more_than_bert_reads": (b"mei|ZH|" + "天".encode() * 600, "text_too_long"),
    "unknown_language": (b"anna|FR|Bonjour.", "unknown_language"),
    "language_in_lower_case": (b"anna|en|Good morning.", "kept"),
    "no_speaker": (b"|EN|Good morning.", "malformed_line"),
    "three_fields": (b"anna|EN", "malformed_line"),
    "latin_1": ("anna|EN|Café".encode("latin-1"), "malformed_line"),
    "utf_16": ("anna|EN|Hello".encode("utf-16-le"), "malformed_line"),
    "nul": (b"anna|EN|Good\0morning.", "malformed_line"),
}
# whole lines
LINES: dict[str, tuple[bytes, str]] = {
    "missing": (f"none.wav|anna|EN|{HELLO}".encode(), "missing_audio"),
    "missing_folder": (f"none/none.wav|anna|EN|{HELLO}".encode(), "missing_audio"),
    "a_folder": (f"folder|anna|EN|{HELLO}".encode(), "unreadable_audio"),
    "file_as_folder": (f"plain.wav/a.wav|anna|EN|{HELLO}".encode(), "unreadable_audio"),
    "dead_link": (f"dead.wav|anna|EN|{HELLO}".encode(), "missing_audio"),
    "name_too_long": (b"a" * 300 + f"|anna|EN|{HELLO}".encode(), "unreadable_audio"),
    "out_of_the_root": (f"../plain.wav|anna|EN|{HELLO}".encode(), "path_leaves_root"),
    "unknown_protocol": (f"nope://plain.wav|anna|EN|{HELLO}".encode(), "unreadable_audio"),
    "no_line": (b"?", "malformed_line"),
}
KINDS = {
    **{
        name: (f"{name}.wav|anna|EN|{HELLO}".encode(), outcome)
        for name, (_, outcome) in RECORDINGS.items()
    },
    **{name: (f"{name}.wav|".encode() + line, outcome) for name, (line, outcome) in TEXTS.items()},
    **LINES,
}


@dataclass
class Bench:
    """A corpus of all kinds of lines, and a surveyor of it."""

    folder: Path
    cfg: DataConfig
    surveyor: Surveyor

    def account(self, content: bytes, name: str = "esd.list") -> tuple[Ledger, dict[int, str]]:
        """Return the ledger of a transcript, and line -> reason or "kept"."""
        ledger, rows = self.judge(content, name)
        transcript = read_transcript(str(self.folder / name))
        outcomes = {line.number: "kept" for line in (transcript.lines[int(n)] for n in rows.line)}
        assert len(outcomes) == len(ledger.kept)
        return ledger, outcomes | {reject.number: str(reject.reason) for reject in ledger.rejects}

    def transcript(self, content: bytes, name: str = "esd.list") -> Lines:
        (self.folder / name).write_bytes(content)
        return read_transcript(str(self.folder / name)).lines

    def judge(self, content: bytes, name: str = "esd.list") -> tuple[Ledger, Rows]:
        (self.folder / name).write_bytes(content)
        transcript = read_transcript(str(self.folder / name))
        surveyed = survey_here(transcript, self.surveyor)
        return judge(self.cfg, transcript, surveyed, HeldRows())


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    folder = tmp_path_factory.mktemp("corpus")
    for number, name in enumerate(TEXTS):
        # each its own: a recording that an earlier line has is rejected
        (folder / f"{name}.wav").write_bytes(audio(tone(level=0.4 + 0.01 * number)))
    for name, (content, _) in RECORDINGS.items():
        (folder / f"{name}.wav").write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "dead.wav").symlink_to(folder / "nowhere.wav")
    bert = BertConfig(zh="random", jp="random", en="random", random_width=16)
    cfg = DataConfig(transcript=str(folder / "esd.list"), shards=str(folder / "out"), bert=bert)
    return Bench(folder, cfg, Surveyor(cfg, make_recipe(cfg, LANGUAGES)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_of_each_kind(bench, kind: str) -> None:
    line, outcome = KINDS[kind]
    _, outcomes = bench.account(line)
    assert outcomes == {1: outcome}


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=12),
    bom=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_kept_and_rejected_are_the_lines_read(bench, kinds: list[str], bom: bool, end: str) -> None:
    lines = [KINDS[kind] for kind in kinds]
    content = (b"\xef\xbb\xbf" if bom else b"") + end.encode().join(line for line, _ in lines)
    ledger, outcomes = bench.account(content)

    assert len(ledger.kept) + len(ledger.rejects) == ledger.lines == len(lines)
    assert sum(ledger.reasons().values()) == len(ledger.rejects)
    assert sorted(outcomes) == list(range(1, len(lines) + 1))
    for number, (line, outcome) in enumerate(lines, start=1):
        path = line.split(b"|")[0]
        repeated = any(other.split(b"|")[0] == path for other, _ in lines[: number - 1])
        assert outcomes[number] == outcome or (repeated and outcomes[number] == "duplicate_id")

    ledger.save(str(bench.folder / "rejects.jsonl"))
    saved = (bench.folder / "rejects.jsonl").read_text("utf-8").splitlines()
    assert len(saved) == len(ledger.rejects)


WAVS = [f"{name}.wav" for name in TEXTS]
ANY_TEXT = st.text(max_size=12) | st.sampled_from(
    ["你好", "はい♪", "50% of 5㎏", "ＡＢＣ\u200b", HELLO]
)
ANY_LINE = st.tuples(
    st.sampled_from(["ZH", "jp", "en_US", "FR"]),
    ANY_TEXT,
    st.sampled_from(["utf-8", "utf-8", "utf-8", "gb18030", "cp932", "utf-16-le"]),
)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(ANY_LINE | st.binary(max_size=20), max_size=8),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r", "\u2028", "\x85"]), min_size=8, max_size=8),
)
def test_kept_and_rejected_are_lines_and_read_and_unread_are_characters(bench, lines, ends) -> None:
    content = b""
    for wav, line, end in zip(WAVS, lines, ends, strict=False):
        if not isinstance(line, bytes):
            language, text, encoding = line
            line = f"{wav}|anna|{language}|{text}".encode(encoding, errors="replace")
        content += line + end.encode()
    try:
        transcript_lines = bench.transcript(content)
    except ValueError as error:
        assert "it seems to be UTF-" in str(error)
        return
    ledger, _ = bench.judge(content)
    assert len(ledger.kept) + len(ledger.rejects) == ledger.lines
    unread = {line.number: line.unread for line in ledger.unread}
    characters = {
        line.number: [char for char in line.text if not char.isspace()] for line in transcript_lines
    }
    # of lines whose recording and text were looked at; the others were rejected before
    assert all(len(unread[number]) <= len(characters[number]) for number in unread)
    read = ledger.characters - ledger.unread_characters().total()
    assert 0 <= read <= ledger.characters <= sum(map(len, characters.values()))
    kept = {line.number for line in transcript_lines} - {line.number for line in ledger.rejects}
    assert sum(len(characters[number]) for number in kept) <= ledger.characters
    assert all(len(unread.get(n, "")) <= 0.3 * len(characters[n]) for n in kept)


def test_tables_name_split_and_id(bench) -> None:
    row = {"path": "plain.wav", "speaker": "anna", "language": "EN", "text": HELLO}
    rows = [
        row | {"id": "a", "split": "train"},
        row | {"id": "b", "path": "crlf.wav"},
        row | {"id": "c", "split": "-1"},
        row | {"id": "a"},
    ]
    _, outcomes = bench.account("\n".join(map(json.dumps, rows)).encode(), "table.jsonl")
    assert outcomes == {1: "kept", 2: "kept", 3: "unknown_split", 4: "duplicate_id"}


def test_one_recording_under_several_names(bench, tmp_path, monkeypatch) -> None:
    """By content: however its path is spelled, and wherever a copy of it lies."""
    plain = bench.folder / "plain.wav"
    monkeypatch.chdir(bench.folder)
    (tmp_path / "linked").symlink_to(bench.folder)
    (tmp_path / "copy.wav").write_bytes(plain.read_bytes())
    spellings = [
        plain,
        plain.as_uri(),
        f"local://{plain}",
        f"{bench.folder}/./plain.wav",
        f"{bench.folder}//plain.wav",
        f"{bench.folder}/folder/../plain.wav",
        tmp_path / "linked/plain.wav",
        tmp_path / "copy.wav",
    ]
    lines = ["plain.wav|anna|EN|" + HELLO, *(f"{path}|anna|EN|{HELLO}" for path in spellings)]
    ledger, outcomes = bench.account("\n".join(lines).encode())
    assert outcomes == {1: "kept"} | dict.fromkeys(range(2, 10), "duplicate_audio")
    first = f"{bench.folder}/esd.list:1"
    assert all(f"the same recording as {first}" in reject.detail for reject in ledger.rejects)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("anna|EN|Something else.", f"text 'Something else.' instead of {HELLO!r}"),
        (f"ben|EN|{HELLO}", "speaker 'ben' instead of 'anna'"),
        ("anna|JP|おはよう。", "language 'JP' instead of 'EN'"),
    ],
)
def test_one_recording_with_two_stories(bench, other: str, told: str) -> None:
    content = f"plain.wav|anna|EN|{HELLO}\n{bench.folder}/plain.wav|{other}"
    ledger, outcomes = bench.account(content.encode())
    assert outcomes == {1: "kept", 2: "contradiction"}
    assert told in ledger.rejects[0].detail
    by_id, outcomes = bench.account(f"plain.wav|anna|EN|{HELLO}\n./plain.wav|{other}".encode())
    assert outcomes == {1: "kept", 2: "duplicate_id"}
    assert "plain.wav already" in by_id.rejects[0].detail


def test_what_a_line_is_rejected_for_does_not_reject_the_next(bench) -> None:
    """A line that is not kept has no claim on its recording."""
    content = f"plain.wav|anna|EN|😀\n{bench.folder}/plain.wav|anna|EN|{HELLO}"
    _, outcomes = bench.account(content.encode())
    assert outcomes == {1: "empty_text", 2: "kept"}


def test_the_first_line_counts_whichever_was_surveyed_first(bench) -> None:
    lines = [f"plain.wav|anna|EN|{HELLO}", f"{bench.folder}/plain.wav|anna|EN|Other."]
    (bench.folder / "esd.list").write_text("\n".join(lines))
    transcript = read_transcript(str(bench.folder / "esd.list"))
    surveyed = Surveyed(transcript.lines)
    settings = circumstances(bench.cfg, bench.surveyor.recipe)
    blocks = surveyed.blocks(bench.surveyor.recipe, settings, HeldRows(), 1)
    for block in reversed(list(blocks.batches())):
        surveyed.add(bench.surveyor(pa.Table.from_batches([block])))
    surveyed.flush()
    ledger, kept = judge(bench.cfg, transcript, surveyed, HeldRows())
    assert kept.line.tolist() == [0]
    assert [reject.number for reject in ledger.rejects] == [2]


@pytest.fixture
def no_s3(monkeypatch) -> Iterator[None]:
    """An S3 at whose address nobody listens."""
    import s3fs

    settings = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("no_s3")
def test_a_bucket_that_does_not_answer_stops_the_run(bench) -> None:
    """What nobody could look at is neither kept nor rejected."""
    accesses = [read_transcript, read_audio, known_speakers, list_shards]
    for access in (*accesses, lambda uri: put_file(uri, b"x")):
        with pytest.raises(UnreachableError, match="s3://nobody/some"):
            access("s3://nobody/some")
    with pytest.raises(UnreachableError):
        read_transcript("s3://nobody/*.list")

    (bench.folder / "far.list").write_text(f"s3://nobody/a.wav|anna|EN|{HELLO}")
    line = read_transcript(str(bench.folder / "far.list")).lines[0]
    row = {name: getattr(line, name, None) for name in LINE.names}
    row |= {"line": 0, "place": f"{line.source}:{line.number}"}
    (found,) = bench.surveyor(pa.Table.from_pylist([row], schema=LINE)).to_pylist()
    assert "far.list:1: s3://nobody/a.wav cannot be reached" in found["problem"]
    assert found["reason"] is None


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Let no file grow beyond `most` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(bench, tmp_path) -> None:
    _, rows = bench.judge(KINDS["plain"][0])
    features = BertActor(bench.cfg, "cpu")(shard_block(rows, rows.new))
    cfg = replace(bench.cfg, shards=str(tmp_path))
    with full_disk(20_000):
        (problem,) = write_rows(features, cfg, bench.surveyor.recipe).to_pylist()

    assert "File too large" in problem["problem"]
    assert str(tmp_path) in problem["problem"]
    assert list((tmp_path / "shards").iterdir()) == []

    (place,) = write_rows(features, cfg, bench.surveyor.recipe).to_pylist()
    assert [place["shard"]] == list_shards(str(tmp_path))


def test_a_file_is_whole_or_as_it_was(tmp_path) -> None:
    path = tmp_path / "file"
    put_file(str(path), b"before")
    with full_disk(5_000), pytest.raises(OSError, match="File too large"):
        put_file(str(path), b"x" * 10_000)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"


def test_a_recording_that_vanishes_between_the_passes_stops_the_run(bench) -> None:
    (bench.folder / "brief.wav").write_bytes(GOOD)
    _, rows = bench.judge(f"brief.wav|anna|EN|{HELLO}".encode())
    features = BertActor(bench.cfg, "cpu")(shard_block(rows, rows.new))
    (bench.folder / "brief.wav").unlink()
    (problem,) = write_rows(features, bench.cfg, bench.surveyor.recipe).to_pylist()
    assert "brief.wav changed while it was prepared" in problem["problem"]
    assert list_shards(bench.cfg.shards) == []
