"""Which recordings there are, and who speaks in them."""

import pytest

from data.settings.asr import AsrConfig
from data.transcribe.records.listing import find_recordings, slice_path, speaker_of


def test_recordings_of_all_folders_are_found(tmp_path):
    for name in ("anna/a.wav", "anna/x/b.FLAC", "c.m4a", "notes.txt", ".hidden.wav", "out/d.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    found, others = find_recordings(str(tmp_path), str(tmp_path / "out"))
    assert [each.name for each in found] == ["anna/a.wav", "anna/x/b.FLAC", "c.m4a"]
    assert found[0].uri == str(tmp_path / "anna/a.wav")
    assert others == 1
    (tmp_path / "anna/a.wav").write_bytes(b"123456")
    changed, _ = find_recordings(str(tmp_path))
    assert changed[0].version != found[0].version
    (alone,), _ = find_recordings(str(tmp_path / "c.m4a"))
    assert (alone.name, alone.uri) == ("c.m4a", str(tmp_path / "c.m4a"))


def test_recordings_of_a_store():
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/recordings/anna/a.wav", b"123")
    (found,), _ = find_recordings("memory://recordings")
    assert found.name == "anna/a.wav"
    assert fsspec.open(found.uri).open().read() == b"123"
    fs.rm("/recordings", recursive=True)


def test_no_recordings(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        find_recordings(str(tmp_path / "x"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds no recording \(1 other files\)"):
        find_recordings(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "settings", "speaker"),
    [
        ("anna/x/a.wav", {}, "anna"),
        ("a.wav", {}, "recordings"),
        ("x/ben 1.wav", {"speaker": "file"}, "ben 1"),
        ("day1/p225_003.wav", {"speaker_pattern": r"(p\d+)_"}, "p225"),
        ("day1/美美/3.wav", {"speaker_pattern": "^[^/]+/([^/]+)/"}, "美美"),
    ],
)
def test_speakers(name, settings, speaker):
    assert speaker_of(name, "/some/recordings", AsrConfig(**settings)) == speaker


def test_speakers_that_cannot_be():
    cfg = AsrConfig(speaker_pattern=r"(p\d+)_")
    with pytest.raises(ValueError, match=r"x/a\.wav: data\.asr\.speaker_pattern finds no speaker"):
        speaker_of("x/a.wav", "/r", cfg)
    with pytest.raises(ValueError, match="a sign that transcripts may not have"):
        speaker_of("a|b/a.wav", "/r", AsrConfig())


def test_names_of_slices_do_not_meet():
    names = ["a/b.wav", "a/b.mp3", "a b.wav", "a-b.wav", "声.wav", "聲.wav"]
    paths = {slice_path(name, 1) for name in names}
    assert len(paths) == len(names)
    assert all(path.isascii() and "|" not in path for path in paths)
