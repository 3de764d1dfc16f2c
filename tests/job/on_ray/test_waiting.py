"""A run that waits for nodes says so once per minute, with what is missing, and no traceback."""

import inspect
import io
import logging
import sys

import pytest
import ray

from job.on_ray.failures import FailuresInARow
from job.on_ray.private import (
    ControllerError,
    ElasticPolicy,
    ElasticScalingPolicy,
    FailureConfig,
    FailureDecision,
    NoopDecision,
    ScalingConfig,
    TrainAutoscalingCoordinatorClient,
    WorkerGroupStartupTimeoutError,
    WorkerGroupState,
)
from job.on_ray.scaling import PromptScaling, waiting_for
from job.on_ray.watching import waiting
from job.on_ray.watching.waiting import ATTEMPT, MEANS_NOTHING, quieten
from trainable.worker.config import WorkerConfig

PER_WORKER = {"CPU": 1.0, "GPU": 1.0}


@pytest.fixture
def console() -> io.StringIO:
    """What the controller's log shows."""
    return io.StringIO()


@pytest.fixture
def controller(console):
    """The log of Ray Train's controller."""
    ours = logging.getLogger("ray.train")
    shown = logging.StreamHandler(console)
    before = ours.level, ours.propagate
    ours.addHandler(shown)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    quieten()
    yield logging.getLogger("ray.train.v2._internal.execution.controller")
    ours.removeHandler(shown)
    ours.setLevel(before[0])
    ours.propagate = before[1]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that have passed, to be counted up; the cluster has three CPUs and one GPU free."""
    now = [5.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 3.0, "GPU": 1.0})
    return now


def test_a_fixed_run_that_waits_two_minutes_prints_five_lines_at_most(
    controller, console, clock, capsys
):
    config = ScalingConfig(num_workers=4, use_gpu=True, resources_per_worker=PER_WORKER)
    policy = FailuresInARow(FailureConfig(max_failures=0), lambda: -1, waiting_for(config).tell)
    for _ in range(12):  # as Ray's controller goes round, every start_timeout_s
        controller.info(f"{ATTEMPT} 4 with the following resources: [{PER_WORKER}] * 4")
        clock[0] += 10
        try:
            raise WorkerGroupStartupTimeoutError(num_workers=4)
        except WorkerGroupStartupTimeoutError as error:
            controller.exception("Error in control loop iteration: %s", error)
            assert policy.make_decision(ControllerError(error)) is FailureDecision.RETRY
    lines = capsys.readouterr().out.splitlines() + console.getvalue().splitlines()
    assert 3 <= len(lines) <= 5
    assert lines[0] == (
        "waiting for nodes: 4 workers take 4 CPU, 4 GPU, missing: 1 CPU, 3 GPU "
        "(`ray status` shows what is coming)"
    )
    assert not [line for line in lines if "Traceback" in line]


def test_an_elastic_run_waits_likewise(clock, capsys, monkeypatch):
    monkeypatch.setattr(
        ElasticPolicy, "make_decision_for_non_running_worker_group", lambda self: NoopDecision()
    )
    config = ScalingConfig(num_workers=(2, 4), use_gpu=True, resources_per_worker=PER_WORKER)
    policy = PromptScaling(config, WorkerConfig.__new__(WorkerConfig))
    for _ in range(120):
        assert isinstance(policy.make_decision_for_non_running_worker_group(), NoopDecision)
        clock[0] += 1
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("waiting for nodes: 2 workers take 2 CPU, 2 GPU, missing: 1 GPU (")
    assert len(others) == 1


def test_free_resources_that_no_worker_fits_into_are_named(clock, capsys, monkeypatch):
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 9.0, "GPU": 9.0})
    config = ScalingConfig(num_workers=4, use_gpu=True, resources_per_worker=PER_WORKER)
    waiting_for(config).tell()
    assert "missing: a node with room for a whole worker" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_ends_no_run(clock, capsys, monkeypatch):
    def silent() -> dict[str, float]:
        raise ray.exceptions.RpcError("no answer")

    monkeypatch.setattr(ray, "available_resources", silent)
    waiting_for(ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1.0})).tell()
    assert "missing: an answer of the cluster" in capsys.readouterr().out


def test_an_elastic_run_says_nothing_while_nothing_changes(controller, console):
    for beginning in MEANS_NOTHING:
        controller.info(f"{beginning}, and so on")
    controller.warning("something else")
    controller.info(f"{ATTEMPT} 2")
    controller.info(f"{ATTEMPT} 3")
    try:
        raise ValueError("a mistake of ours")
    except ValueError:
        controller.exception("it failed")
    assert console.getvalue().startswith(
        f"something else\n{ATTEMPT} 2\n{ATTEMPT} 3\nit failed\nTraceback"
    )


def test_ray_still_says_what_is_held_back():
    modules = [
        ElasticScalingPolicy.__module__,
        TrainAutoscalingCoordinatorClient.__module__,
        WorkerGroupState.__module__.rpartition(".")[0] + ".worker_group",
    ]
    said = "".join(inspect.getsource(sys.modules[name]) for name in modules)
    assert all(beginning in said for beginning in (*MEANS_NOTHING, ATTEMPT))
