"""The benchmark of large manifests: its parts run, and measure what it says."""

import logging

import pytest
import torch

from benchmarks import corpus
from data.shards.manifest import read_manifest
from trainable.run.logs import log

SIZE = 3000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for the files and the log of what runs in this process."""
    for name in ("handlers", "propagate"):
        monkeypatch.setattr(log, name, getattr(log, name))
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield str(tmp_path)
    for handler in log.handlers:
        handler.close()
    log.setLevel(logging.NOTSET)
    torch.set_num_threads(1)


@pytest.mark.medium
def test_the_parts_give_all_figures(folder):
    figures = {}
    for part in (corpus.written, corpus.read, corpus.planned, corpus.worker, corpus.loader):
        figures |= part(folder, SIZE)
    wanted = [
        "read_s",
        "plan_s",
        "worker_start_s",
        "worker_gib",
        "loader_gib",
        "lookup_us",
        "bytes_per_row",
    ]
    assert set(wanted) <= set(figures)
    assert all(value > 0 for value in figures.values())
    # 59, and a dictionary of as many speakers as there are utterances
    assert 59 < figures["bytes_per_row"] < 59 + 40
    table = read_manifest(corpus.configuration(folder).data.shards).table
    columns = {name: set(table.column(name).to_pylist()) for name in ("id", "key", "split")}
    assert len(columns["id"]) == len(columns["key"]) == SIZE
    assert columns["split"] == {"train", "validation"}


def test_memory_is_what_an_empty_corpus_does_not_need():
    figures = corpus.above({"worker_gib": 0.75, "read_s": 2.0}, {"worker_gib": 0.5, "read_s": 1.0})
    assert figures == {"worker_gib": 0.25, "read_s": 2.0}
