"""A run that waits for nodes says so once per minute, with what is missing, and no traceback."""

import io
import logging
from pathlib import Path

import pytest
import ray
from ray._private.ray_logging import WorkerStandardStreamDispatcher

from job.on_ray.failures import FailuresInARow
from job.on_ray.private import (
    ControllerError,
    ElasticPolicy,
    FailureConfig,
    FailureDecision,
    NoopDecision,
    ScalingConfig,
    WorkerGroupStartupTimeoutError,
    output,
)
from job.on_ray.scaling import PromptScaling, waiting_for
from job.on_ray.watching import waiting
from job.on_ray.watching.quiet import (
    ATTEMPT,
    LEAVES,
    LINES_MEAN_NOTHING,
    MEANS_NOTHING,
    quieten,
    quieten_driver,
)
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


def test_workers_that_leave_as_they_were_told_leave_without_a_traceback(controller, console):
    error = "trainable.worker.preemption.PreemptedError: the node of rank 0 is leaving"
    controller.error(f"Error in training function:\nTraceback ...\n{error}")
    controller.info(f"[FailurePolicy] RETRY\n  Source: preemption\nError: {error}")
    assert console.getvalue() == ""
    controller.error("Error in training function:\nTraceback ...\nValueError: a mistake")
    controller.info("[FailurePolicy] RETRY\n  Source: worker group\n")
    assert console.getvalue().startswith("Error in training function:\nTraceback ...\nValueError")
    assert "worker group" in console.getvalue()


# as Ray says it, and whether a driver passes it on
PINNED = "with label selectors: [ray.io/node-id IN [abc123]]. Add suitable node types to this"
LINES = {
    "[E 1 2] core_worker.cc:2465: Actor with class name: 'PreemptionWatcher' and ID: 'c3' has "
    "constructor arguments in the object store and max_restarts > 0.": False,
    f"No available node types can fulfill resource requests {{'CPU': 1.0}}*2 {PINNED}": False,
    "No available node types can fulfill cluster constraint: {'GPU': 1.0}*4. Add": False,
    "No available node types can fulfill resource requests {'CPU': 1.0}*2. Add suitable": True,
    "No available node types can fulfill resource requests {'TPU': 1.0}*1, {'CPU': 1.0}*2 "
    f"{PINNED}": True,
    "WARNING: 8 PYTHON worker processes have been started on node: e1 with address": False,
    "rank 0 step 5: saves now": True,
    "[E 1 2] core_worker.cc:1: out of memory": True,
}


def test_a_driver_passes_on_what_means_something(monkeypatch):
    printed: list[dict] = []
    dispatcher = WorkerStandardStreamDispatcher()
    dispatcher.add_handler("ray_print_logs", printed.append)
    dispatcher.add_handler("another", lambda batch: None)
    monkeypatch.setattr(output, "dispatcher", dispatcher)
    monkeypatch.setattr(output, "_PRINT", lambda batch, ignore_prefix: printed.append(batch))
    driver = output.driver
    monkeypatch.setattr(driver, "print_to_stdstream", driver.print_to_stdstream)
    quieten_driver()
    dispatcher.emit({"pid": 1, "lines": list(LINES)})
    dispatcher.emit({"pid": 2, "lines": [line for line, shown in LINES.items() if not shown]})
    assert printed == [{"pid": 1, "lines": [line for line, shown in LINES.items() if shown]}]

    # as what listens to raylets does
    driver.print_to_stdstream({"pid": "raylet", "lines": list(LINES)[-3:]}, ignore_prefix=False)
    assert printed[1:] == [{"pid": "raylet", "lines": list(LINES)[-2:]}]

    dispatcher.remove_handler("ray_print_logs")  # as Ray does when it disconnects
    assert [name for name, _ in dispatcher.handlers] == ["another"]


def test_ray_still_says_what_is_held_back():
    """In its sources, and in its compiled part."""
    package = Path(ray.__file__).parent
    said = "".join(path.read_text() for path in (package / "train").rglob("*.py"))
    assert all(beginning.split("\n")[0].split("]")[0] in said for beginning in MEANS_NOTHING)
    assert ATTEMPT in said
    assert LEAVES[0] in said
    scheduler = (package / "autoscaler/v2/event_logger.py").read_text()
    compiled = (package / "_raylet.so").read_bytes()
    assert b"has constructor arguments in the object store and max_restarts" in compiled
    raylet = (package / "core/src/ray/raylet/raylet").read_bytes()
    assert b" worker processes have been started on node" in raylet
    assert len(LINES_MEAN_NOTHING) == 4
    for told in ("fulfill resource requests", " with label selectors: [", "cluster constraint"):
        assert told in scheduler
