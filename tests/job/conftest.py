"""Commands run as users run them: as processes, on Ray clusters of their own."""

import contextlib
import functools
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from job.settings import cli
from job.settings.commands import command_of
from tests.conftest import torch_switches_kept
from tests.flaky import Flaky, flaky_bucket

if TYPE_CHECKING:
    from tests.job.observed import Observed

ROOT = Path(__file__).parents[2]
# a run may be called like this: it is no pattern, and Ray's own names are ASCII
TWO = "two [v2] 声*"
DEMO = ROOT / "job/presets/demo.yaml"
# a quarter of the demo preset's step
SMALL = [
    "--model.n_flow_layer",
    "2",
    "--model.resblock_kernel_sizes",
    "[3]",
    "--model.resblock_dilation_sizes",
    "[[1, 3]]",
    "--train.segment_size",
    "4096",
    "--data.plan.max_frames",
    "500",
    "--eval.samples",
    "1",
    "--eval.max_utterances",
    "2",
]
# The end of an epoch of five steps, and a step of the next one. Two large micro-batches take less
# time than four small ones: at this size it is their number that counts.
OVER_AN_EPOCH = {
    "train__max_steps": 6,
    "train__micro_batches_per_step": 2,
    "data__plan__max_frames": 1200,
    "data__plan__max_utterances": 8,
}


def overrides(**options: object) -> list[str]:
    """`run__name="x"` as `--run.name x`."""
    return [
        part
        for key, value in options.items()
        for part in (f"--{key.replace('__', '.')}", str(value))
    ]


class Command:
    """`python -m MODULE ...` in the project's root."""

    def __init__(self, env: dict[str, str]):
        self.env = env

    def __call__(
        self, module: str, *argv: str, timeout: float = 280
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *argv],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )

    def start(self, module: str, *argv: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", module, *argv],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """Environment variables of the commands."""
    # sockets below it must have short names
    with tempfile.TemporaryDirectory(prefix="bvr-", dir="/tmp", ignore_cleanup_errors=True) as temp:
        env = os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "BERT_VITS2_RAY_TMP": temp,
            "CUDA_VISIBLE_DEVICES": "",
        }
        env.pop("RAY_ADDRESS", None)
        yield env


@pytest.fixture(scope="session")
def command(environment) -> Command:
    return Command(environment)


def parser_of(program: str, description: str) -> cli.ConfigParser:
    """A command's parser; one of the configuration's keys alone is kept: to make it takes 50 ms."""
    command = command_of(program.removeprefix("python -m "))
    if command is None or not command.is_configured:
        return PARSER(program, description)
    return kept_parser(program, description, sys.argv[0])


PARSER = cli.parser


@functools.cache
def kept_parser(program: str, description: str, called: str) -> cli.ConfigParser:
    """The parser of a command that was called by a name, which its help shows."""
    return PARSER(program, description)


@pytest.fixture(scope="session")
def call(environment) -> Callable[..., subprocess.CompletedProcess]:
    """`python -m MODULE ...` in this process, which has its imports already."""

    def run(module: str, *argv: str | Path) -> subprocess.CompletedProcess:
        said, errors, status = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", [module, *map(str, argv)]),
            mock.patch.object(cli, "parser", parser_of),
            contextlib.chdir(ROOT),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(errors),
            torch_switches_kept(),
        ):
            try:
                runpy.run_module(module, run_name="__main__")
            except SystemExit as end:
                status = int(end.code or 0)
            except Exception:  # noqa: BLE001  # whatever it is, Python prints it
                traceback.print_exc()
                status = 1
        return subprocess.CompletedProcess(sys.argv, status, said.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def shards(call, ray_shared, tmp_path_factory) -> Path:
    """The demo corpus, prepared once."""
    folder = tmp_path_factory.mktemp("shards")
    ray_shared.have(dashboard=True)  # as `observed` wants it
    done = call("job.prepare", "--config", str(DEMO), "--data.shards", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def train(command, shards) -> Callable[..., subprocess.CompletedProcess]:
    """Run job.train on the demo preset, made smaller; keyword arguments are overrides."""

    def run(storage: Path, **options: object) -> subprocess.CompletedProcess:
        done = command("job.train", *arguments(shards, storage, **options))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def observed(ray_shared, shards, tmp_path_factory) -> "Observed":
    """A run of 2 workers and 6 steps, validated at 3 and 6, with averaged weights; read only.

    And what was seen of it from outside.
    """
    from tests.job.observed import observe  # which imports Ray

    options = OVER_AN_EPOCH | {
        "run__name": TWO,
        "run__trackers": "[mlflow]",
        "scaling__num_workers": 2,
        "train__ema_decay": 0.9,
        "train__log_every_steps": 1,
        "train__measure_mfu": "true",
        # which no step reaches: it shows what is told of clipping
        "train__clip_norm__g": 1e9,
        "train__checkpoint__every_steps": 2,
        "eval__every_steps": 3,
        "eval__syntheses": 1,
    }
    folder = tmp_path_factory.mktemp("observed")
    ray_shared.have(dashboard=True)
    cfg = cli.config_of(arguments(shards, folder / "runs", **options))
    return observe(cfg, folder, ray_shared.dashboard)


@pytest.fixture(scope="session")
def two_workers(observed) -> Path:
    """The folder of the run of two workers."""
    return observed.run


@pytest.fixture
def store(environment, monkeypatch) -> Iterator[Flaky]:
    """`s3://bucket` on a server of its own, for this process and the commands."""
    with flaky_bucket() as (flaky, env):
        for name, value in env.items():
            monkeypatch.setitem(environment, name, value)
        yield flaky


@pytest.fixture
def bucket(store) -> str:
    """The same, where its faults do not matter."""
    return "s3://bucket"


def arguments(shards: Path, storage: Path, **options: object) -> list[str]:
    base = {"data__shards": shards, "run__storage": storage}
    return ["--config", str(DEMO), *SMALL, *overrides(**base | options)]


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
