"""Shards on an object store that answers 503: over the real S3 protocol."""

import itertools
import threading
from collections.abc import Callable, Iterator

import fsspec
import numpy as np
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from data.loading import RowLoader
from data.manifest import read_manifest
from tests.data.test_bad_rows import policy
from tests.data.test_pipeline import make_corpus


class Flaky:
    """A moto server that answers 503 to those GET requests of shards that it is told to."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.fails: Callable[[], bool] = lambda: False
        self.failed = 0

    def __call__(self, environ: dict, start_response: Callable) -> object:
        if environ["REQUEST_METHOD"] == "GET" and "/shards/" in environ["PATH_INFO"] and self.fails():
            self.failed += 1
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.app(environ, start_response)


@pytest.fixture
def store(monkeypatch) -> Iterator[Flaky]:
    flaky = Flaky()
    server = make_server("127.0.0.1", 0, flaky, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("data.files.PATIENCE_S", 10)
    monkeypatch.setitem(fsspec.config.conf, "s3", {})  # no attempts of botocore's own
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()
    fsspec.filesystem("s3").mkdir("bucket")
    yield flaky
    s3.clear_instance_cache()
    server.shutdown()


def test_503_is_asked_again_then_stops_the_run_and_is_never_damage(store):
    spec = policy(make_corpus("s3://bucket/corpus", rows_per_shard=4), "replace")
    manifest = read_manifest(spec.data.shards)
    rows = np.arange(20)
    count = itertools.count()
    store.fails = lambda: next(count) % 3 == 0
    loaded = RowLoader(manifest, spec.data, 8).load(rows)
    assert store.failed > 5
    assert (loaded.arrays["rows"].tolist(), loaded.replaced, loaded.error) == (rows.tolist(), (), "")
    store.fails = lambda: True
    loader = RowLoader(manifest, spec.data, 8)
    loaded = loader.load(rows[:2])
    assert not loaded.arrays
    assert "cannot be reached" in loaded.error
    assert not loader.damaged
    store.fails = lambda: False
    row = manifest.rows("train")[3]
    fsspec.filesystem("s3").rm_file(f"bucket/corpus/{manifest.column('shard')[row]}")
    loaded = RowLoader(manifest, spec.data, 8).load(np.array([row]))
    assert "is missing" in loaded.replaced[0]
