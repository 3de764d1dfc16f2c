"""A run whose storage is an object store, over the real S3 protocol."""

import json
import re

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tests.job.conftest import Command, arguments
from trainable.records import read_metrics


@pytest.fixture
def bucket(command, monkeypatch):
    """`s3://bucket` on a server of its own, for this process and for the commands."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(command.env, name, value)
    cached = fsspec.get_filesystem_class("s3")
    cached.clear_instance_cache()  # of other tests' servers
    fsspec.filesystem("s3").mkdir("bucket")
    yield "s3://bucket"
    cached.clear_instance_cache()
    server.stop()


def test_a_run_on_s3_is_written_in_parts_and_continues(command: Command, bucket, shards):
    options = {
        "run__name": "far",
        "scaling__num_workers": 1,
        "train__checkpoint__every_steps": 2,
        "eval__every_steps": 4,
    }
    for steps in (4, 6):
        done = command("job.train", *arguments(shards, f"{bucket}/runs", train__max_steps=steps, **options))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert f"step {steps} of {steps}" in done.stdout
    run, fs = f"{bucket}/runs/far", fsspec.filesystem("s3")
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert len(fs.ls("bucket/runs/far/metrics")) > 1
    assert re.search(r"resumes at step 4\b", fs.cat_file("bucket/runs/far/logs/rank-0.log").decode())
    assert json.loads(fs.cat_file("bucket/runs/far/checkpoint_000000006/state.json"))["position"]["step"] == 6
    assert fs.glob("bucket/runs/far/tensorboard/events*")
