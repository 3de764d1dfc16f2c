"""Whether a cluster is fit: each check on good and bad nodes."""

import platform
from dataclasses import replace
from importlib.metadata import version

import pytest

from job.on_ray.health import fitness
from job.on_ray.health.fitness import Check
from job.on_ray.health.probes import Listener, NodeReport, look, try_storage, unreachable
from job.settings.config import Config, ScalingSettings
from job.settings.paths import with_absolute_paths
from trainable.config import TrainConfig

FITTING = {name: version(name) for name in fitness.PACKAGES} | {"python": platform.python_version()}
NODE = NodeReport(
    "10.0.0.1",
    FITTING,
    ("NVIDIA L4",),
    "580.95.05",
    "2.27.7",
    10**11,
    10**10,
    10**10,
    0.0,
    0.1,
    0.1,
    "",
)
NO_GPU = replace(NODE, gpus=(), driver="", nccl="")
CUDA = Config(scaling=ScalingSettings(device="cuda"))
CPU = Config(scaling=ScalingSettings(device="cpu"))
AUTO = replace(CUDA, train=TrainConfig(precision="auto"))
COMPILED = Config(train=TrainConfig(compile="parts"))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def worst(checks: list[Check]) -> Check:
    return max(checks, key=lambda c: ("ok", "warn", "FAIL").index(c.state))


def test_a_healthy_node_is_fit():
    nodes = [NODE, replace(NODE, node="10.0.0.2")]
    found = [
        *fitness.versions(nodes),
        *fitness.gpus(CUDA, nodes),
        *fitness.room(nodes),
        fitness.clocks({"a": 0.1}),
        *fitness.storage(replace(CUDA, run=replace(CUDA.run, storage="s3://b/runs")), nodes),
        fitness.cpus_for_data(CUDA, {"CPU": 8}),
    ]
    assert {(c.state, c.fix) for c in found} == {("ok", "")}


@pytest.mark.parametrize(
    ("checks", "state", "told"),
    [
        (
            lambda: fitness.versions([replace(NODE, versions=FITTING | {"torch": "2.10.0"})]),
            "warn",
            "torch 2.10.0",
        ),
        (
            lambda: fitness.versions([replace(NODE, versions=FITTING | {"s3fs": "missing"})]),
            "warn",
            "s3fs missing",
        ),
        (
            lambda: fitness.versions([NODE, replace(NODE, versions=FITTING | {"python": "3.9"})]),
            "FAIL",
            "same Python",
        ),
        (lambda: fitness.gpus(CUDA, [replace(NODE, driver="535.1")]), "FAIL", "580 or newer"),
        (
            lambda: fitness.gpus(CUDA, [replace(NODE, gpus=())]),
            "FAIL",
            "start the container with its GPUs",
        ),
        (
            lambda: fitness.gpus(CUDA, [NODE, replace(NODE, gpu_trouble="V100 has 7.0")]),
            "FAIL",
            "cannot use those of 10.0.0.1 V100 has 7.0; or set scaling.device cpu",
        ),
        (
            lambda: fitness.gpus(CPU, [replace(NODE, gpu_trouble="V100 has 7.0")]),
            "ok",
            "not wanted",
        ),
        (
            lambda: list(fitness.gpus(CUDA, [replace(NODE, bf16=True)]))[1:2],
            "ok",
            "train.precision fp32; these GPUs have bf16: auto takes it",
        ),
        (
            lambda: list(fitness.gpus(AUTO, [replace(NODE, bf16=True), NODE]))[1:2],
            "ok",
            "train.precision auto: a new run takes fp32",
        ),
        (
            lambda: fitness.compilers(COMPILED, [NODE, replace(NODE, compiler_trouble="no g++")]),
            "FAIL",
            "none on 10.0.0.1 no g++",
        ),
        (lambda: fitness.compilers(COMPILED, [NODE]), "ok", "on every node"),
        (lambda: fitness.gpus(CUDA, [NO_GPU]), "FAIL", "scaling.device is cuda"),
        (lambda: fitness.gpus(Config(), [NO_GPU]), "ok", "trains on the CPU"),
        (
            lambda: fitness.storage(Config(), [replace(NODE, storage_error="denied")]),
            "FAIL",
            "denied",
        ),
        (
            lambda: fitness.storage(Config(), [replace(NODE, write_s=10.0)]),
            "warn",
            "bucket in the nodes' region",
        ),
        (lambda: fitness.storage(Config(), [NODE, NODE]), "warn", "set run.storage to s3"),
        (lambda: [fitness.clocks({"10.0.0.9": -7.0})], "warn", "10.0.0.9"),
        (lambda: fitness.room([NODE, replace(NODE, free_disk=10**9)]), "warn", "larger disk"),
        (lambda: fitness.room([replace(NODE, free_memory=10**9)]), "warn", "data.loaders"),
        (lambda: fitness.room([replace(NODE, shared_memory=2**26)]), "warn", "--shm-size"),
        (
            lambda: [fitness.cpus_for_data(Config(), {"CPU": 1})],
            "FAIL",
            "lower scaling.num_workers",
        ),
    ],
)
def test_an_ill_node_is_told_with_what_to_do(checks, state, told):
    check = worst(list(checks()))
    assert check.state == state
    assert told in f"{check.found} {check.fix}"
    assert state == "ok" or check.fix


def test_what_an_autoscaler_may_start_is_no_fault(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cfg = Config(scaling=ScalingSettings(device="cuda", loader_resources={"data": 1}))
    assert [(c.state, c.found) for c in fitness.gpus(cfg, [NO_GPU])] == [
        ("ok", "none yet: waits for the autoscaler")
    ]
    assert fitness.cpus_for_data(cfg, {"CPU": 8, "data": 8}).state == "ok"
    assert fitness.cpus_for_data(cfg, {}).state == "warn"
    assert "no data" in fitness.cpus_for_data(cfg, {"CPU": 8}).found


def test_storage_is_tried_and_left_as_it_was(tmp_path, bucket):
    for storage in (str(tmp_path), f"{bucket}/runs"):
        write_s, read_s, error = try_storage(storage)
        assert (error, write_s is not None, read_s is not None) == ("", True, True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert try_storage(f"{tmp_path}/file")[2]
    assert "bucket does not exist" in try_storage("s3://nowhere/runs")[2]


def test_a_closed_port_is_found():
    listener = Listener()
    assert unreachable([listener.address()]) == []
    node, port = listener.address()
    listener.server.close()
    assert unreachable([(node, port)]) == [node]


def test_a_node_reports_itself(tmp_path):
    report = look(("ray", "no-such-package"), str(tmp_path), TrainConfig())
    assert report.versions == {
        "python": platform.python_version(),
        "ray": "2.60.0",
        "no-such-package": "missing",
    }
    assert min(report.free_disk, report.free_memory) > 0
    assert not report.storage_error


def test_settings_that_do_not_fit_are_told(tmp_path):
    cfg = with_absolute_paths(Config())
    cfg = replace(
        cfg,
        data=replace(cfg.data, shards=str(tmp_path)),
        scaling=replace(cfg.scaling, num_workers=3),
    )
    configuration, shards = fitness.configuration(cfg)
    assert configuration.state == shards.state == "FAIL"
    assert "train.micro_batches_per_step" in configuration.fix
    assert "job.prepare" in shards.fix
