"""What users get wrong: one clear line that names what to change, and status 2."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.job.conftest import DEMO, SMALL, arguments


def error_of(done: subprocess.CompletedProcess) -> str:
    """Return the one line by which a command that failed says why."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")][-1]


@pytest.fixture
def fails(call, ray_local):
    """The error of a command that has asked Ray, here one that is there already."""
    return lambda module, *argv: error_of(call(module, *argv))


@pytest.fixture
def fails_at_once(call, monkeypatch):
    """As `fails`, for what fails before anything is asked of Ray: in this process, without Ray."""
    monkeypatch.setattr("job.on_ray.cluster.ray_session", contextlib.nullcontext)
    return lambda module, *argv: error_of(call(module, *argv))


def test_missing_transcript(fails_at_once, tmp_path):
    message = fails_at_once(
        "job.prepare",
        "--data.transcript",
        str(tmp_path / "nobody.list"),
        "--data.shards",
        str(tmp_path),
    )
    assert "nobody.list" in message


def test_no_shards_and_no_transcript(fails_at_once, tmp_path):
    message = fails_at_once(
        "job.train", "--data.shards", str(tmp_path / "none"), "--model.slm.path", "random"
    )
    assert "job.prepare" in message


def test_unreadable_audio_and_unknown_language_end_in_the_rejects(fails, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"not audio")
    (tmp_path / "esd.list").write_text(
        "noise.wav|a|EN|Hello.\nnoise.wav|a|FR|Bonjour.\ngone.wav|a|EN|Hello.\n"
    )
    message = fails(
        "job.prepare",
        "--config",
        str(DEMO),
        "--data.transcript",
        str(tmp_path / "esd.list"),
        "--data.shards",
        str(tmp_path / "shards"),
    )
    assert "data.max_reject_share" in message
    rejects = [
        json.loads(line) for line in (tmp_path / "shards/rejects.jsonl").read_text().splitlines()
    ]
    assert [r["reason"] for r in rejects] == [
        "unreadable_audio",
        "unknown_language",
        "missing_audio",
    ]


def test_more_workers_than_the_plan_can_feed(fails_at_once, shards, tmp_path):
    message = fails_at_once(
        "job.train",
        "--config",
        str(DEMO),
        "--data.shards",
        str(shards),
        "--run.storage",
        str(tmp_path),
        "--scaling.num_workers",
        "5",
    )
    assert "scaling.num_workers 5" in message
    assert "train.micro_batches_per_step 4" in message


def test_a_run_of_another_architecture(two_workers, fails, shards, tmp_path):
    shutil.copytree(two_workers, tmp_path / "a")
    message = fails(
        "job.train",
        "--config",
        str(DEMO),
        *SMALL,
        "--data.shards",
        str(shards),
        "--run.storage",
        str(tmp_path),
        "--run.name",
        "a",
        "--train.max_steps",
        "7",
        "--scaling.num_workers",
        "1",
        "--model.filter_channels",
        "32",
    )
    assert "of another architecture" in message
    assert "model.*" in message


def test_settings_that_do_not_fit_the_shards(fails_at_once, shards, tmp_path):
    message = fails_at_once(
        "job.train",
        "--config",
        str(DEMO),
        "--data.shards",
        str(shards),
        "--run.storage",
        str(tmp_path),
        "--model.bert_channels",
        "1024",
    )
    assert "model.bert_channels" in message


def test_synthesize_names_what_is_there(fails_at_once, tmp_path):
    message = fails_at_once(
        "job.synthesize",
        "--checkpoint",
        str(tmp_path),
        "--text",
        "a",
        "--speaker",
        "x",
        "--language",
        "EN",
        "--out",
        str(tmp_path / "x.wav"),
    )
    assert "holds no checkpoint" in message
    assert Path(tmp_path / "x.wav").exists() is False


def raising_in_one_worker(path, device):
    """Make a scorer, as the key eval.scorers names it; note when it fails."""
    if os.environ.get("RANK") == "1":  # in a worker, and in one alone
        Path(path).write_text(str(time.time()), encoding="utf-8")
        raise TypeError("raising_in_one_worker() wants another argument")
    return lambda *_: 0.0


def test_an_error_of_one_worker_that_no_start_would_cure_ends_the_run_once(
    call, ray_local, shards, tmp_path
):
    met = tmp_path / "met"  # when the worker met it
    own = tmp_path / "own.yaml"
    factory = f"{__name__}:{raising_in_one_worker.__name__}"
    own.write_text(
        f"eval: {{scorers: {{mine: {{factory: '{factory}', path: {met}}}}}}}\n",
        encoding="utf-8",
    )
    done = call(
        "job.train", *arguments(shards, tmp_path, scaling__num_workers=2), "--config", str(own)
    )
    ended = time.time()

    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: TypeError: raising_in_one_worker() wants another argument")
    assert "logs/driver.log has the whole traceback" in last
    folder = tmp_path / "demo"
    assert Path(__file__).name in (folder / "logs/driver.log").read_text(encoding="utf-8")
    assert (folder / "logs/rank-0.log").read_text(encoding="utf-8").count(" pid ") == 1
    assert ended - float(met.read_text(encoding="utf-8")) < 30
