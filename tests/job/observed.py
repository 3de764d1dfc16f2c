"""A run of job.train that is watched as it trains."""

import contextlib
import io
import json
import re
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train import Result

from job.on_ray.private import UserCallback
from job.settings.config import Config
from job.train import train
from tests.conftest import torch_switches_kept

TOLD_WITHIN_S = 30
SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>.*)\} (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Observed:
    """What is seen of a run.

    Attributes:
        run: its folder.
        said: what the command printed.
        result: Ray Train's.
        reports: step, checkpoint's name and metrics of each report to Ray Train's controller.
        numbers: name -> labels and value of each sample that Prometheus was given.
        tab: what the dashboard's tab Train showed last.
        mlflow: folder of MLflow's runs.
    """

    run: Path
    said: str
    result: Result
    reports: list
    numbers: dict[str, Any]
    tab: dict[str, Any]
    mlflow: Path


def observe(cfg: Config, folder: Path, dashboard: str) -> Observed:
    """Train on the Ray of this process, and watch.

    Args:
        cfg: the configuration.
        folder: where reports and trackers write.
        dashboard: address of the Ray's dashboard.
    """
    watcher, said = Watcher(dashboard), io.StringIO()
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # as on a cluster
    patch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlruns")
    patch.delenv("RAY_ADDRESS", raising=False)
    watcher.start()
    try:
        with torch_switches_kept(), contextlib.redirect_stdout(said):
            result = train(cfg, [Reports(folder / "reports")])
        watcher.wait_for_the_end()
    finally:
        watcher.over.set()
        patch.undo()
    watcher.join()
    assert result is not None
    return Observed(
        run=Path(cfg.run.storage) / cfg.run.name,
        said=said.getvalue(),
        result=result,
        reports=[json.loads(line) for line in (folder / "reports").read_text().splitlines()],
        numbers=watcher.numbers,
        tab=watcher.tab,
        mlflow=folder / "mlruns",
    )


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

    def wait_for_the_end(self) -> None:
        """Wait until the tab has been told of it, for a while."""
        deadline = time.monotonic() + TOLD_WITHIN_S
        while time.monotonic() < deadline:
            if any(run["status"] == "FINISHED" for run in self.tab.get("train_runs", [])):
                return
            time.sleep(0.1)

    def run(self) -> None:
        # beside other work an answer may be late, or not come
        while not self.over.wait(0.3):
            with suppress(OSError):
                told = samples(get(self.urls[0]))
                self.numbers |= {name: told[name] for name in told if "bert_vits2" in name}
            with suppress(OSError):  # or no run has begun
                self.tab = json.loads(get(self.urls[1]))
