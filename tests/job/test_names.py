"""Names of runs in any script: saved, found, listed, spoken, exported; Ray's own are ASCII."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data.files import located, put_file
from job import export, synthesize
from job.on_ray.scaling import requester_id
from job.on_ray.storage import forget_checkpoint_list
from job.on_ray.training import run_config
from job.reports.runs import runs
from job.settings.config import Config, RunSettings
from job.settings.paths import run_folder, with_absolute_paths
from tests.job.test_runs import make_run
from tests.job.voices import tiny_checkpoint
from trainable.config import CheckpointConfig
from trainable.run.logs import log_path
from trainable.run.metrics_file import MetricsFile, read_metrics
from trainable.run.storage import checkpoints, newest_good, prune, resolve, write_checkpoint

NAMES = [
    "anna [v2]",
    "a*b",
    "what?",
    "{x}",
    "a::b",
    "50% #1",
    "-x",
    "~",
    "我的声音",
    "голос",
    "👩‍🎤",
    "x" * 250,
]
# what these names would mean as patterns
OTHERS = ["anna v", "anna 2", "axb", "whatx", "x"]


def config(storage: str, name: str) -> Config:
    return with_absolute_paths(Config(run=RunSettings(name, storage)))


@pytest.fixture(params=["disk", "s3"])
def storage(request, tmp_path) -> str:
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("bucket") + "/runs"


def empty(step: int):
    def write(create) -> None:
        for name, content in (("state.json", b"{}"), ("checksums.json", b"{}")):
            with create(name) as file:
                file.write(content)

    return write


@pytest.mark.medium
def test_what_is_saved_under_any_name_is_found_again(storage):
    for name in OTHERS:
        make_run(storage, name, 9, {9: 0.0})
    for name in NAMES:
        folder = run_folder(config(storage, name))
        make_run(storage, name, 20, {5: 0.5, 10: 0.25})
        write_checkpoint(folder, 15, empty(15))
        write_checkpoint(folder, 20, empty(20))
        metrics = MetricsFile(folder, 0)
        metrics.add([{"step": 1}, {"step": 2}])
        metrics.persist()
        forget_checkpoint_list(folder)
        prune(folder, [5, 10, 15, 20], CheckpointConfig(keep=1, keep_best=0, every_steps=20))
        assert [uri[-3:] for uri in checkpoints(folder)] == ["020"], name
        assert [line["step"] for line in read_metrics(folder)] == [1, 2]
        assert MetricsFile(folder, 1).local is None or read_metrics(folder) == [{"step": 1}]
    found = {run.name: run.step for run in runs(storage)}
    assert found == dict.fromkeys(OTHERS, 9) | dict.fromkeys(NAMES, 20)


@pytest.mark.medium
def test_a_voice_speaks_and_is_exported_by_any_name(storage, tmp_path, capsys):
    fs, root = located(storage)
    name = "anna [v2]*{x}?::我"
    made = tiny_checkpoint(tmp_path / "made")
    for path in made.iterdir():
        put_file(f"{storage}/{name}/{made.name}/{path.name}", path.read_bytes())
    run = f"{storage}/{name}"
    assert newest_good(run) == resolve(run) == f"{run}/{made.name}"
    said = ["--text", "Hi.", "--language", "EN", "--speaker", "en", "--device", "cpu"]
    out = f"{storage}/{name}.flac"
    assert synthesize.main(["--checkpoint", run, *said, "--out", out]) == 0
    assert fs.cat_file(f"{root}/{name}.flac").startswith(b"fLaC")
    argv = ["--checkpoint", run, "--out", f"{run}/[out]", "--networks", "g", "--without-optimizer"]
    assert export.main(argv) == 0
    assert fs.exists(f"{root}/{name}/[out]/G_7.pth")
    assert not Path("s3:").exists()


@pytest.mark.parametrize("name", NAMES)
def test_rays_own_names_are_ascii_and_its_files_lie_in_the_runs_folder(name, tmp_path):
    cfg = config(str(tmp_path / "声"), name)
    made = run_config(cfg, [])
    assert made.name.isascii()
    assert len(made.name) <= 100
    assert made.storage_context.experiment_fs_path == run_folder(cfg)
    assert [path.name for path in (tmp_path / "声").iterdir()] == [name]
    assert requester_id(made.storage_context.experiment_fs_path).isascii()
    assert requester_id(f"{tmp_path}/runs/a") == f"train-{tmp_path}/runs/a"


def test_logs_of_a_run_in_an_object_store_have_short_names():
    path = log_path("memory://bucket/" + "我" * 80, 0)
    assert all(len(part.encode()) <= 255 for part in path.parts)
    assert path != log_path("memory://bucket/" + "我" * 79, 0)


def test_foreign_checkpoints_are_neither_the_newest_nor_removed(tmp_path):
    make_run(str(tmp_path), "a", 20, {5: 0.5, 10: 0.25})
    run = tmp_path / "a"
    for name in ("checkpoint_9", "checkpoint_0000000011", "checkpoint_x", "checkpoint_٣"):
        shutil.copytree(run / "checkpoint_000000005", run / name)
    assert [uri[-3:] for uri in checkpoints(str(run))] == ["010", "005"]
    assert [(each.step, each.best) for each in runs(str(tmp_path))] == [(10, 0.25)]
    prune(str(run), [5, 10], CheckpointConfig(keep=1, keep_best=0, every_steps=10))
    assert len(list(run.glob("checkpoint_*"))) == 5
    # from ten digits on, the names' order is not that of the steps
    make_run(str(tmp_path), "b", 20, {999_999_999: 0.5, 1_000_000_000: 0.25})
    assert checkpoints(f"{tmp_path}/b")[0].endswith("checkpoint_1000000000")


def test_paths_of_keys_are_expanded_or_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    cfg = config("~/my runs", "a")
    cfg = replace(cfg, train=replace(cfg.train, init_from="~/models"))
    cfg = replace(cfg, data=replace(cfg.data, shards=f"file://{tmp_path}/a%20b"))
    found = with_absolute_paths(cfg)
    assert found.run.storage == f"{tmp_path}/my runs"
    assert found.train.init_from == f"{tmp_path}/models"
    assert found.data.shards == f"{tmp_path}/a%20b"
    wrong = replace(cfg, run=RunSettings("a", os.fsdecode(b"/x/\xff")))
    with pytest.raises(ValueError, match=r"run\.storage: .* is no text in this locale"):
        with_absolute_paths(wrong)
    wrong = replace(cfg, data=replace(cfg.data, audio_root="C:\\wavs"))
    with pytest.raises(ValueError, match=r"data\.audio_root: C:.*Windows"):
        with_absolute_paths(wrong)
