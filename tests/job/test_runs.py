"""The list of runs: step, best score and state, on a disk and in an object store."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
import yaml

import job.reports.runs
from data.files import put_file
from data.plan.epoch_plan import Position
from job.reports.runs import Run, runs
from job.runs import main
from job.settings.cli import read_config, to_yaml
from tests.test_house import ROOT
from tests.tiny import DEMO
from trainable.run.format import FORMAT, CheckpointInfo


def make_run(
    storage: str, name: str, goal: int, scores: dict[int, float | None], **ranked: object
) -> None:
    folder = f"{storage}/{name}"
    train = {"max_steps": goal, "checkpoint": {"metric": "eval/kl", **ranked}}
    put_file(f"{folder}/config.yaml", yaml.safe_dump({"train": train}).encode())
    for step, score in scores.items():
        of = {} if score is None else {"eval/kl": score, "eval/mel": 0.0}
        info = CheckpointInfo(Position(step), "digest", "code", {}, {}, 1, of)
        checkpoint = f"{folder}/checkpoint_{step:09d}"
        put_file(
            f"{checkpoint}/state.json", json.dumps({"format": FORMAT, **asdict(info)}).encode()
        )
        put_file(f"{checkpoint}/checksums.json", b"{}")


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_runs_are_listed_with_step_score_and_state(kind, tmp_path, request, capsys):
    storage = str(tmp_path) if kind == "disk" else request.getfixturevalue("bucket") + "/runs"
    make_run(storage, "done", 20, {10: 0.5, 15: 0.25, 20: 0.75})
    make_run(storage, "young", 20, {5: None})
    make_run(storage, "new", 20, {})
    put_file(f"{storage}/notes/readme.txt", b"no run")
    found = {run.name: run for run in runs(storage)}
    assert {name: (run.step, run.best) for name, run in found.items()} == {
        "done": (20, 0.25),
        "young": (5, None),
        "new": (0, None),
    }
    assert main([storage]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["done"][:6] == ["done", "finished", "20", "20", "0.2500", "eval/kl"]
    assert lines["young"][:6] == ["young", "running", "5", "20", "-", "eval/kl"]


def test_the_best_score_may_be_the_largest(tmp_path):
    scores = {10: 0.5, 15: 0.75, 20: 0.25}
    make_run(str(tmp_path), "natural", 20, scores, larger_is_better=True)
    make_run(str(tmp_path), "other", 20, scores)
    assert {run.name: run.best for run in runs(str(tmp_path))} == {"natural": 0.75, "other": 0.25}


def test_the_last_write_tells_a_stopped_run():
    now = datetime.now(UTC)
    run = Run("a", 5, 20, None, "eval/mel", now - timedelta(minutes=5))
    assert run.state(now) == "running"
    assert run.state(now + timedelta(hours=1)) == "stopped"


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_what_is_no_run_hides_none(kind, tmp_path, request, capsys):
    storage = str(tmp_path) if kind == "disk" else request.getfixturevalue("bucket") + "/runs"
    make_run(storage, "good", 20, {10: 0.5})
    broken = {
        "tab": b"a:\n\tb: 1",
        "bytes": bytes(range(256)),
        "gbk": "name: 声音".encode("gbk"),
        "list": b"[1]",
        "empty": b"",
        "other": b"other: 1",
        "train": b"train: 5",
        "steps": b"train: {max_steps: many}",
        "checkpoint": b"train: {max_steps: 5, checkpoint: 3}",
        "metric": b"train: {max_steps: 5, checkpoint: {metric: 3}}",
        "deep": b"[" * 5000,
        "deeper": b"[" * 500_000,  # libyaml's bindings would end the process
        "indented": b"- " * 100_000,
    }
    for name, content in broken.items():
        put_file(f"{storage}/{name}/config.yaml", content)
    put_file(f"{storage}/notes.txt", b"")
    put_file(f"{storage}/good/checkpoint_5/checksums.json", b"{}")
    put_file(f"{storage}/good/checkpoint_000000011/checksums.json", b"{}")
    put_file(f"{storage}/good/checkpoint_000000011/state.json", b"[" * 5000)
    put_file(f"{storage}/good/status.json", b"[" * 5000)
    assert main([storage]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:2]] == ["run", "good"]
    told = {line.split(": ")[1]: line for line in out[2:]}
    assert told.keys() == broken.keys()
    assert all(line.startswith("not shown: ") for line in told.values())
    assert "config.yaml has no train.max_steps" in told["steps"]
    assert [run.name for run in runs(storage)] == ["good"]


@pytest.mark.medium
def test_many_runs_are_read_once_each_and_many_at_a_time(tmp_path, monkeypatch, capsys):
    """What a thousand take is measured by `python -m benchmarks.records`."""
    config = to_yaml(read_config(DEMO)).encode()
    count = 200
    for number in range(count):
        make_run(str(tmp_path), f"run{number}", 120, {10: 0.5, 20: 0.25, 30: 0.75})
        put_file(f"{tmp_path}/run{number}/config.yaml", config)
    read = job.reports.runs.read_file
    lock, waiting, most, files = threading.Lock(), 0, 0, []

    def answered_after_a_moment(uri: str) -> bytes:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
            files.append(uri)
        time.sleep(0.05)  # as a store does
        with lock:
            waiting -= 1
        return read(uri)

    monkeypatch.setattr(job.reports.runs, "read_file", answered_after_a_moment)
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == count + 1
    assert len(files) == len(set(files)) == count
    assert most >= 8
    assert job.reports.runs.YAML_LOADER is yaml.CSafeLoader


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_run_that_may_not_be_read_hides_none(tmp_path, capsys):
    for name in ("a", "b"):
        make_run(str(tmp_path), name, 20, {})
    (tmp_path / "a/config.yaml").chmod(0)
    assert main([str(tmp_path)]) == 0
    assert "not shown: a: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"), [(None, "holds no runs"), (b"other: 1", r"config\.yaml has no train")]
)
def test_where_no_run_is(tmp_path, config, message):
    if config:
        put_file(f"{tmp_path}/a/config.yaml", config)
    with pytest.raises(ValueError, match=message):
        main([str(tmp_path)])


@pytest.mark.processes
def test_listing_runs_needs_no_torch(tmp_path):
    """Nor transformers: they take seconds to import, and the list should be there at once."""
    script = (
        "import sys\n"
        "from job.runs import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "holds no runs" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_index_links_runs_and_names_what_is_none(tmp_path, capsys):
    storage = tmp_path / "runs"
    make_run(str(storage), "good & <b>", 20, {10: 0.5})
    put_file(f"{storage}/empty/config.yaml", b"")
    out = tmp_path / "pages/index.html"
    assert main([str(storage), "--html", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    shown = out.read_text("utf-8")
    assert "good &amp; &lt;b&gt;" in shown
    assert 'href="../runs/good%20%26%20%3Cb%3E/checkpoint_000000010"' in shown
    assert "step 10 of 20, best eval/kl 0.5" in shown
    assert "<td>empty</td>" in shown
    with pytest.raises(ValueError, match="--html"):
        main([str(storage), "--html", ""])
