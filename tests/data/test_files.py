"""Paths and URIs are literal, and what is none on this machine is refused in one line."""

import zipfile
from pathlib import Path

import pytest
from fsspec.implementations.zip import ZipFileSystem

from data.files import PathError, ascii_name, is_local, is_uri, located, put_file, read_file

NAMES = [
    "anna [v2]",
    "a*b",
    "what?",
    "{x}",
    "a::b",
    "memory::x",
    "50% #1",
    "-x",
    "~",
    "a:b",
    "我的声音",
    "👩‍🎤",
    "x" * 200,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_any_name_is_written_and_read(scheme, name, tmp_path):
    for other in ("anna v", "axb", "whatx", "x", "a"):
        put_file(f"{scheme}{tmp_path}/{other}/f", b"of somebody else")
    uri = f"{scheme}{tmp_path}/{name}/f"
    put_file(uri, b"ours")
    assert read_file(uri) == b"ours"
    if scheme != "memory://":
        assert (tmp_path / name / "f").read_bytes() == b"ours"
        assert is_local(uri)


@pytest.mark.parametrize("name", NAMES)
def test_relative_paths_start_here(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = name if name != "~" else f"./{name}"
    assert located(path)[1] == f"{tmp_path}/{name}"
    assert located(f"./{name}/")[1] == f"{tmp_path}/{name}"


def test_a_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("~/x")[1] == f"{tmp_path}/x"
    assert located("~")[1] == str(tmp_path)
    assert located("./~/x")[1] == f"{Path.cwd()}/~/x"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("C:\\voices\\x", "of Windows"),
        ("d:/voices", "of Windows"),
        ("\\\\server\\voices", "of Windows"),
        ("~nobody_here/x", "no home folder ~nobody_here"),
        ("s3:/bucket/x", "two slashes"),
        ("", "is no path"),
        ("a\0b", "is no path"),
        ("file://relative/x", "file:///"),
        ("nowhere://x", "Protocol not known"),
    ],
)
def test_what_is_no_path(path, message):
    with pytest.raises(PathError, match=message) as caught:
        put_file(path, b"")
    assert len(str(caught.value).splitlines()) == 1


def test_chains_of_file_systems_stay(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.list", "content")
    for where in (f"{tmp_path}/a.zip", f"file://{tmp_path}/a.zip"):
        fs, path = located(f"zip://x.list::{where}")
        assert isinstance(fs, ZipFileSystem)
        assert fs.cat_file(path) == b"content"
    assert is_uri("simplecache::s3://bucket/x")
    assert not is_uri("/folder/s3://x")


def test_a_file_never_goes_into_a_folder_of_its_name(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="x"):
        put_file(str(tmp_path / "x"), b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["x"]


def test_stand_ins_are_ascii_short_and_stable():
    assert ascii_name("run-1_b.2") == "run-1_b.2"
    seen = {ascii_name(name) for name in (*NAMES, "a b", "a_b", "a-b", "我的声", "x" * 201)}
    assert len(seen) == len(NAMES) + 5
    for name in seen:
        assert name.isascii()
        assert len(name) <= 100
        assert set(name) <= set("-._") | set(filter(str.isalnum, name))
        assert ascii_name(name) == name
    assert ascii_name("我的声音") == ascii_name("我的声音")
