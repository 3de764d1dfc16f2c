"""A run whose storage is an object store, over the real S3 protocol."""

import json
import re

import fsspec
import pytest
from ray.train import Result

from tests.job.conftest import Command, arguments
from tests.job.on_ray.test_results import listed
from trainable.run.format import step_of
from trainable.run.metrics_file import read_metrics
from trainable.run.storage import checkpoints


@pytest.mark.slow
def test_a_run_on_s3_is_written_in_parts_and_continues(command: Command, bucket, shards):
    options = {
        "run__name": "far",
        "scaling__num_workers": 1,
        "train__checkpoint__every_steps": 2,
        "eval__every_steps": 4,
    }
    for steps in (4, 6):
        done = command(
            "job.train", *arguments(shards, f"{bucket}/runs", train__max_steps=steps, **options)
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert f"step {steps} of {steps}" in done.stdout
    assert "the run far was finished at step 4: it is extended to train.max_steps 6" in done.stdout
    run, fs = f"{bucket}/runs/far", fsspec.filesystem("s3")
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert len(fs.ls("bucket/runs/far/metrics")) > 1
    assert re.search(
        r"resumes at step 4\b", fs.cat_file("bucket/runs/far/logs/rank-0.log").decode()
    )
    assert (
        json.loads(fs.cat_file("bucket/runs/far/checkpoint_000000006/state.json"))["position"][
            "step"
        ]
        == 6
    )
    assert fs.glob("bucket/runs/far/tensorboard/events*")
    assert [step_of(uri) for uri in checkpoints(run)] == [6, 4, 2]
    result = Result.from_path(run)
    assert listed(result) == [2, 4, 6]
    assert result.metrics["loss/g/mel"] == read_metrics(run)[-1]["loss/g/mel"]
