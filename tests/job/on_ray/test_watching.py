"""A run as others see it while it trains: Ray's result and dashboard, Prometheus, MLflow."""

import json
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray

from data.files import ascii_name
from job.on_ray.private import UserCallback, start_on_loopback
from job.on_ray.watching.metrics import COUNTED, REPORTED, exported
from job.settings.cli import parse, parser
from job.train import train
from tests.conftest import torch_switches_kept
from tests.job.conftest import OVER_AN_EPOCH, arguments, metrics
from tests.job.on_ray.test_results import listed
from tools.local_cluster import free_port

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>.*)\} (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
NAME = "anna [v2] 声"
OPTIONS = OVER_AN_EPOCH | {
    "run__name": NAME,
    "train__max_steps": 4,
    "train__log_every_steps": 1,
    "train__measure_mfu": "true",
    "train__checkpoint__every_steps": 2,
    "train__checkpoint__keep": 1,
    "train__checkpoint__keep_best": 0,
    "eval__every_steps": 3,
    "scaling__num_workers": 2,
    "run__trackers": "[mlflow]",
}


@pytest.fixture(scope="module")
def watched(request) -> Iterator[str]:
    """A Ray with a dashboard on loopback; the address of that."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # as on a cluster
    patch.setenv("RAY_metrics_report_interval_ms", "500")
    patch.delenv("RAY_ADDRESS", raising=False)
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    port = free_port()
    start_on_loopback(4, folder, port, object_store_memory=256 * 2**20, configure_logging=False)
    yield f"http://127.0.0.1:{port}"
    ray.shutdown()
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)


class Reports(UserCallback):
    """Notes in a file what Ray Train's controller is told: step, checkpoint's name, metrics."""

    def __init__(self, file: Path):
        self.file = file

    def after_report(self, run_context, metrics, checkpoint) -> None:
        name = checkpoint and checkpoint.path.rpartition("/")[2]
        with self.file.open("a") as file:
            file.write(json.dumps([metrics[0]["step"], name, metrics[0]]) + "\n")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Prometheus' text: name -> (labels, value) of each sample."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        if (sample := SAMPLE.fullmatch(line)) is not None:
            labels = dict(LABEL.findall(sample["labels"]))
            found.setdefault(sample["name"], []).append((labels, float(sample["value"])))
    return found


class Watcher(threading.Thread):
    """Asks what Prometheus and the Train tab would ask, for as long as a run trains."""

    def __init__(self, dashboard: str):
        super().__init__(daemon=True)
        port = ray.nodes()[0]["MetricsExportPort"]
        self.over = threading.Event()
        self.urls = f"http://127.0.0.1:{port}/metrics", f"{dashboard}/api/train/v2/runs/v1"
        self.numbers: dict[str, Any] = {}
        self.tab: dict[str, Any] = {}

    def run(self) -> None:
        while not self.over.wait(0.3):
            with suppress(urllib.error.URLError):
                told = samples(get(self.urls[0]))
                self.numbers |= {name: told[name] for name in told if "bert_vits2" in name}
            with suppress(urllib.error.URLError):  # no run has begun
                self.tab = json.loads(get(self.urls[1]))


@pytest.fixture(scope="module")
def seen(watched, shards, tmp_path_factory) -> dict[str, Any]:
    """What is seen of a run of two workers and four steps."""
    folder = tmp_path_factory.mktemp("watched")
    argv = arguments(shards, folder / "runs", **OPTIONS)
    cfg, _ = parse(parser("python -m job.train", ""), argv)
    watcher, patch = Watcher(watched), pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlruns")
    watcher.start()
    try:
        with torch_switches_kept():
            result = train(cfg, [Reports(folder / "reports")])
        time.sleep(2)  # the tab is told of the end
    finally:
        watcher.over.set()
        patch.undo()
    watcher.join()
    lines = [json.loads(line) for line in (folder / "reports").read_text().splitlines()]
    return {"watcher": watcher, "result": result, "reports": lines, "folder": folder}


@pytest.mark.cluster
def test_each_line_of_the_log_is_reported(seen):
    run = seen["folder"] / "runs" / NAME
    steps = [step for step, checkpoint, _ in seen["reports"] if checkpoint is None]
    assert {1, 2, 3} <= set(steps)
    of_run = {line["step"]: line for line in metrics(run)}
    for step, _, told in seen["reports"]:
        for tag in ("loss/g/mel", "loss/d/total", "grad_norm_g", "seconds"):
            assert told[tag] == pytest.approx(of_run[step][tag]), tag
        assert told["learning_rate"] > 0
        assert 0 <= told["share/waiting_for_data"] <= 1
        assert told["rate/utterances_per_s"] > 0
    # no checkpoint is saved at 3, and its scores are reported nevertheless
    assert {step for step, _, told in seen["reports"] if "eval/mel" in told} == {3, 4}


@pytest.mark.cluster
def test_rays_result_is_the_folder(seen):
    result = seen["result"]
    assert listed(result) == [4]  # and 2 is pruned
    assert result.metrics["loss/g/mel"] > 0
    assert result.metrics["step"] == 4
    assert list(result.metrics_dataframe["step"]) == [4]


@pytest.mark.cluster
def test_prometheus_knows_all_numbers(seen):
    numbers = seen["watcher"].numbers
    absent = {"ray_bert_vits2_skipped_update"}  # of fp16 alone
    assert exported().keys() - absent <= numbers.keys()
    for name in exported().keys() - absent:
        # Ray's labels are ASCII
        assert {labels["run"] for labels, _ in numbers[name]} == {ascii_name(NAME)}, name
    assert all(0 < value < 1.5 for _, value in numbers["ray_bert_vits2_mfu"])
    losses = {labels["loss"]: value for labels, value in numbers["ray_bert_vits2_loss"]}
    assert losses["g/mel"] > 0
    assert [value for _, value in numbers["ray_bert_vits2_restarts"]] == [0]
    assert max(value for _, value in numbers["ray_bert_vits2_checkpoints"]) >= 1
    assert {number.name for number in REPORTED}.isdisjoint(COUNTED)


@pytest.mark.cluster
def test_the_train_tab_shows_the_run(seen):
    (run,) = seen["watcher"].tab["train_runs"]
    assert run["status"] == "FINISHED"
    assert run["attempts"][0]["workers"][1]["world_rank"] == 1


@pytest.mark.cluster
def test_mlflow_has_the_run(seen):
    (mel,) = (seen["folder"] / "mlruns").glob("*/*/metrics/loss/g/mel")
    assert [int(line.split()[2]) for line in mel.read_text().splitlines()][-1] == 4
