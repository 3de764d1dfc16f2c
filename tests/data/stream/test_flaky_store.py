"""Shards on an object store that answers 503: over the real S3 protocol."""

import itertools
from collections.abc import Iterator

import fsspec
import numpy as np
import pytest

from data.shards.manifest import read_manifest
from data.stream.loading import RowLoader
from tests.data.stream.corpus import make_corpus
from tests.data.stream.test_bad_rows import policy
from tests.flaky import Flaky, flaky_bucket


@pytest.fixture
def store(monkeypatch) -> Iterator[Flaky]:
    """A store that botocore asks only once."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with flaky_bucket() as (flaky, _):
        yield flaky


def reads_shard(request: str) -> bool:
    return request.startswith("GET ") and "/shards/" in request


@pytest.mark.medium
@pytest.mark.parametrize(("ranges", "failures"), [(False, 6), (True, 2)])
def test_503_is_asked_again_then_stops_the_run_and_is_never_damage(
    store, monkeypatch, ranges, failures
):
    corpus = make_corpus("s3://bucket/corpus", rows_per_shard=4, ranges=ranges)
    spec = policy(corpus, "replace")
    manifest = read_manifest(spec.data.shards)
    rows = np.arange(20)
    count = itertools.count()
    store.share = 1.0
    store.may_fail = lambda request: reads_shard(request) and next(count) % 3 == 0
    loaded = RowLoader(manifest, spec.data, 8).load(rows)
    assert store.failed >= failures
    assert loaded.arrays["rows"].tolist() == rows.tolist()
    assert (loaded.replaced, loaded.error) == ((), "")

    monkeypatch.setattr("data.files.PATIENCE_S", 2)
    store.may_fail = reads_shard
    loader = RowLoader(manifest, spec.data, 8)
    loaded = loader.load(rows[:2])
    assert not loaded.arrays
    assert "cannot be reached" in loaded.error
    assert not loader.damaged

    store.share = 0.0
    cut = manifest.rows("train")[5]
    path = f"bucket/corpus/{manifest.column('shard')[cut]}"
    content = fsspec.filesystem("s3").cat_file(path)
    fsspec.filesystem("s3").pipe_file(path, content[:3])
    loaded = RowLoader(manifest, spec.data, 8).load(np.array([cut]))
    assert "is damaged" in loaded.replaced[0]
    fsspec.filesystem("s3").pipe_file(path, content)

    row = manifest.rows("train")[3]
    fsspec.filesystem("s3").rm_file(f"bucket/corpus/{manifest.column('shard')[row]}")
    loaded = RowLoader(manifest, spec.data, 8).load(np.array([row]))
    assert "is missing" in loaded.replaced[0]
