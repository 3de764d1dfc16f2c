"""What a preparation takes over from the one before: recordings that have not changed are not read.

Without Ray: by `prepare` with its functions in a row.
"""

import os
import resource
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import data.corpus.prepare
import data.corpus.survey
from data.config import BertConfig, DataConfig
from data.corpus.prepare import prepare
from data.corpus.tables.files import PREFIX, TableFile
from data.files import content_version
from data.rejected import RejectedError
from tests.data.corpus.without_ray import without_ray, write_sound

pytestmark = pytest.mark.medium

TEXTS = ("Good morning.", "Yes.", "Well, come in.", "I see.", "Not now.", "Go on.")
MANIFEST = ("manifest.json", "manifest.parquet", "rejects.jsonl", "report.html")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six recordings that were written a while ago, the last of which cannot be decoded."""
    lines = []
    for number, text in enumerate(TEXTS):
        write_sound(tmp_path / f"{number}.wav", number)
        lines.append(f"{number}.wav|anna|EN|{text}")
    (tmp_path / "5.wav").write_text("no audio")
    for path in tmp_path.glob("*.wav"):
        at(path, -100)
    (tmp_path / "esd.list").write_text("\n".join(lines), encoding="utf-8")
    without_ray(monkeypatch)
    monkeypatch.setattr(data.corpus.prepare, "LINES_PER_BLOCK", 1)
    monkeypatch.setattr("data.corpus.tables.surveyed.LEAST_ROWS", 1)
    return tmp_path


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The recordings that the first pass reads."""
    names: list[str] = []
    read_audio = data.corpus.survey.read_audio

    def watched(uri: str) -> bytes:
        names.append(Path(uri).name)
        return read_audio(uri)

    monkeypatch.setattr(data.corpus.survey, "read_audio", watched)
    return names


def at(path: Path, seconds: float) -> None:
    """Let a file have changed some seconds ago, or in some."""
    when = path.stat().st_mtime_ns + int(seconds * 1e9)
    os.utime(path, ns=(when, when))


def config(folder: Path) -> DataConfig:
    bert = BertConfig(zh="random", jp="random", en="random", random_width=16)
    return DataConfig(
        transcript=str(folder / "esd.list"),
        shards=str(folder / "out"),
        bert=bert,
        rows_per_shard=2,
        max_reject_share=0.5,
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return what a preparation is known by."""
    shards = [path.relative_to(folder / "out") for path in (folder / "out/shards").iterdir()]
    return {str(name): (folder / "out" / name).read_bytes() for name in (*MANIFEST, *shards)}


def test_what_has_not_changed_is_not_read(folder, read) -> None:
    prepare(config(folder))
    assert sorted(read) == [f"{number}.wav" for number in range(6)]
    before = files(folder)
    read.clear()
    prepare(config(folder))
    assert read == []
    assert files(folder) == before


def test_what_has_changed_is_read(folder, read) -> None:
    prepare(config(folder))
    before = files(folder)
    read.clear()
    at(folder / "0.wav", 10)
    at(folder / "5.wav", 10)
    prepare(config(folder))
    assert sorted(read) == ["0.wav", "5.wav"]
    assert files(folder) == before  # what they hold is what it was
    read.clear()
    prepare(config(folder))
    assert read == []

    write_sound(folder / "0.wav", 77)  # of the same size, and just now
    write_sound(folder / "5.wav", 78)
    mended = prepare(config(folder))
    assert sorted(read) == ["0.wav", "5.wav"]
    assert mended.header["counts"] == {"lines": 6, "kept": 6, "rejected": {}}
    read.clear()
    assert prepare(config(folder)).digest == mended.digest
    # a clock may be too coarse to tell another change of that moment
    assert sorted(read) == ["0.wav", "5.wav"]


def test_a_recording_that_is_gone_is_missed(folder, read) -> None:
    prepare(config(folder))
    (folder / "1.wav").unlink()
    assert prepare(config(folder)).header["counts"]["rejected"] == {
        "missing_audio": 1,
        "unreadable_audio": 1,
    }


def test_other_limits_and_texts_read_what_no_shard_holds(folder, read) -> None:
    prepare(config(folder))
    read.clear()
    limited = replace(config(folder), max_seconds=15.0)
    assert prepare(limited).header["counts"]["kept"] == 5
    assert read == ["5.wav"]
    read.clear()
    lines = (folder / "esd.list").read_text(encoding="utf-8").replace("I see.", "I know.")
    (folder / "esd.list").write_text(lines, encoding="utf-8")
    assert prepare(limited).header["counts"]["kept"] == 5
    assert read == ["3.wav"]
    read.clear()
    prepare(limited)
    assert read == []


@pytest.mark.parametrize("where", ["survey", "features"])
def test_a_killed_run_loses_what_was_in_progress(folder, read, monkeypatch, where: str) -> None:
    name = {"survey": "survey_blocks", "features": "feature_blocks"}[where]
    whole = getattr(data.corpus.prepare, name)

    def killed(*args):
        blocks = whole(*args)
        yield next(blocks)
        yield next(blocks)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data.corpus.prepare, name, killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(folder))
    read.clear()
    prepare(config(folder))
    assert len(read) == (4 if where == "survey" else 0)

    other = folder.with_name(f"{folder.name}-calm")
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("out"))
    prepare(config(other))
    theirs, ours = files(other), files(folder)
    assert theirs.keys() == ours.keys()
    for name in ("manifest.parquet", *(name for name in ours if name.startswith("shards/"))):
        assert theirs[name] == ours[name]


def test_shards_of_older_code_have_no_survey(folder, read, monkeypatch) -> None:
    before = prepare(config(folder))
    shutil.rmtree(folder / "out/survey")
    computed = []
    monkeypatch.setattr(data.corpus.prepare, "feature_blocks", lambda *args: computed.append(args))
    assert prepare(config(folder)).digest == before.digest
    assert not computed


def test_a_shard_that_is_lost_is_written_again(folder, read) -> None:
    before = prepare(config(folder))
    lost = before.values("shard", [0])[0]
    (folder / "out" / lost).unlink()
    read.clear()
    assert prepare(config(folder)).digest == before.digest
    assert len(read) == 2
    assert (folder / "out" / lost).exists()


def test_a_corpus_that_grows_knows_what_came_later(folder, read) -> None:
    whole = prepare(config(folder))
    assert whole.generations is None
    shutil.rmtree(folder / "out")
    lines = (folder / "esd.list").read_text(encoding="utf-8").splitlines()
    (folder / "esd.list").write_text("\n".join(lines[1:4]), encoding="utf-8")
    prepare(config(folder))
    (folder / "esd.list").write_text("\n".join(lines), encoding="utf-8")
    grown = prepare(config(folder))
    assert grown.digest == whole.digest
    later = {"0.wav", "4.wav"}
    found = zip(grown.column("id"), grown.table.column("generation").to_pylist(), strict=True)
    assert dict(found) == {name: int(name in later) for name in grown.column("id")}
    # it is kept, also by rows that are written again
    for shard in grown.words("shard"):
        (folder / "out" / shard).unlink()
    assert prepare(config(folder)).generations == grown.generations is not None


@pytest.mark.parametrize("content", [b"", b"no parquet", None])
def test_a_damaged_part_is_told_and_made_again(folder, read, capsys, content) -> None:
    before = prepare(config(folder))
    (part,) = (folder / "out/survey").iterdir()
    part.write_bytes(part.read_bytes()[:-100] if content is None else content)
    read.clear()
    assert prepare(config(folder)).digest == before.digest
    assert len(read) == 6
    assert f"warning: {part} is damaged" in capsys.readouterr().out
    read.clear()
    prepare(config(folder))
    assert read == []


def test_files_of_killed_preparations_are_removed(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, fresh = (tmp_path / f"{PREFIX}{name}" for name in ("left", "fresh"))
    left.write_bytes(b"x")
    fresh.write_bytes(b"x")
    at(left, -100)
    used = TableFile(pa.schema([("a", pa.int64())]))
    at(Path(used.path), -100)
    prepare(config(folder))
    assert {path.name for path in tmp_path.glob(f"{PREFIX}*")} >= {fresh.name, Path(used.path).name}
    assert not left.exists()


def test_a_full_temporary_folder_is_named() -> None:
    table = TableFile(pa.schema([("a", pa.int64())]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="set TMPDIR to a folder with more room"):
            table.append(pa.table({"a": range(10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_version_of_what_has_none(tmp_path) -> None:
    assert content_version(str(tmp_path)) is None
    path = tmp_path / "new.wav"
    path.write_bytes(b"x")
    assert content_version(str(path)) is None  # it changed just now
    at(path, -100)
    assert content_version(str(path)) == f"1 {path.stat().st_mtime_ns}"
    with pytest.raises(FileNotFoundError):
        content_version(str(tmp_path / "none"))
    with pytest.raises(RejectedError):
        data.corpus.survey.read_audio(str(tmp_path / "none"))
