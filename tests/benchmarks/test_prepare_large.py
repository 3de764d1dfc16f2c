"""What the benchmark of large preparations is measured by."""

import os

import pytest

from benchmarks.prepare_large import configured, forget_reads, held_by, read_since, write_noise
from data.corpus.prepare import prepare
from data.corpus.transcript import read_transcript
from tests.data.corpus.without_ray import without_ray


def test_recordings_that_were_read_are_known(tmp_path) -> None:
    write_noise(tmp_path, 12)
    lines = read_transcript(str(tmp_path / "esd.list")).lines
    assert read_since(tmp_path) == set()
    contents = {(tmp_path / line.id).read_bytes() for line in lines[:5]}
    assert len(contents) == 5  # each its own
    assert read_since(tmp_path) == {f"{number}.wav" for number in range(5)}
    forget_reads(tmp_path)
    assert read_since(tmp_path) == set()


@pytest.mark.medium
def test_all_of_its_recordings_are_kept(tmp_path, monkeypatch) -> None:
    without_ray(monkeypatch)
    write_noise(tmp_path, 16)
    assert prepare(configured(tmp_path)).header["counts"]["kept"] == 16


def test_memory_is_that_of_a_process() -> None:
    before = held_by(os.getpid())
    block = bytearray(b"x" * (50 << 20))
    assert 40 << 20 < held_by(os.getpid()) - before < 200 << 20
    del block
    assert held_by(0) == 0
