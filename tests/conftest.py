"""Fixtures that several packages' tests share, and what tests may start."""

import contextlib
import gc
import logging
import multiprocessing.process
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest
import torch

from tests.forked import Forking
from tools.local_cluster import free_port

# a token in the home folder would make later clusters of this machine ask for it
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# workers run at nice 15 by default: beside other work they would starve
os.environ.setdefault("RAY_worker_niceness", "0")
# beside other work its processes take longer to start than Ray waits for them
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")

# Triton's kernels are interpreted where no GPU is there to run them; read when it is imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# a shell's background jobs ignore Ctrl-C, and the commands that tests start would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# threads that wait for each other spin, and on a busy machine that costs more than they bring
torch.set_num_threads(1)

# to look through all that torch and Ray have made takes a third of a second: seldom, then
gc.set_threshold(5000)

# on a busy machine an example takes any time, which says nothing about the code
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# a test with one of these fixtures starts Ray, or a command of ours that does
CLUSTER_FIXTURES = {"ray_shared", "ray_local", "command", "cluster"}
CPUS = 4  # of the shared Ray: two workers, their loader and one more
RAY_PROGRAMS = ("gcs_server", "raylet")
FREE_WITHIN_S = 5.0  # what a test has ended is told with a delay
RAY_ATTEMPTS = 3

# a test that computes for longer than this is to have a marker that says so: `make test-quick` has
# a minute. The limit is far above it, as a busy machine computes slowly and a first test may import
TOLD_CPU_S = 1.0
LIMIT_CPU_S = 8.0
LONG = ("medium", "processes", "cluster", "slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep what is imported and collected, which lives to the end, from the garbage collector."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray: before the options -m and -k choose."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        fixtures = set(getattr(item, "fixturenames", ())) - set(parameters)
        if fixtures & CLUSTER_FIXTURES:
            item.add_marker("cluster")


class Guard:
    """Ends a test that starts what its markers do not say, its fixtures included."""

    def __init__(self) -> None:
        self.item: pytest.Item | None = None
        self.long: dict[str, float] = {}  # test -> CPU seconds that no marker announces

    def check_length(self, item: pytest.Item, seconds: float) -> None:
        """Note a test that has computed for long; fail one that has for very long."""
        if seconds < TOLD_CPU_S or any(map(item.get_closest_marker, LONG)):
            return
        self.long[item.nodeid] = seconds
        if seconds > LIMIT_CPU_S:
            pytest.fail(
                f"{item.nodeid} has computed for {seconds:.1f} s and is not marked so: mark it "
                "with @pytest.mark.medium (`make test-quick` leaves it out then)"
            )

    def check(self, what: str, markers: tuple[str, ...]) -> None:
        if self.item is None or any(map(self.item.get_closest_marker, markers)):
            return
        pytest.fail(
            f"{self.item.nodeid} starts {what} and is not marked so: mark it with "
            f"@pytest.mark.{markers[0]} (`make test-quick` leaves it out then)"
        )

    def check_command(self, argv: object) -> None:
        if torch.cuda.is_available():
            return  # Triton starts compilers, and what finds its libraries
        words = argv if isinstance(argv, (list, tuple)) else [argv]
        program = Path(words[0]).name if words else ""
        if program in RAY_PROGRAMS:
            self.check("Ray", ("cluster",))
        else:
            self.check("a process", ("processes", "cluster"))


guard = Guard()

# Ray's workers are forks of one process: to import torch would take most of their time
forking = Forking()
os.environ.update(forking.environment())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have what forks Ray's workers, before a test or its fixtures start Ray."""
    if item.get_closest_marker("cluster"):
        forking.have()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    guard.item = item
    try:
        return (yield)
    finally:
        guard.item = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    began = time.process_time()
    result = yield
    guard.check_length(item, time.process_time() - began)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that should be marked."""
    for name, seconds in guard.long.items():
        terminalreporter.write_line(f"{name} computed for {seconds:.1f} s: mark it as medium")


def pytest_configure() -> None:
    """Have the guard look at all that starts processes."""
    popen = subprocess.Popen.__init__
    start = multiprocessing.process.BaseProcess.start
    system = os.system

    def guarded_popen(self: subprocess.Popen, args: object, *rest: object, **options: object):
        guard.check_command(args)
        popen(self, args, *rest, **options)

    def guarded_start(self: multiprocessing.process.BaseProcess) -> None:
        guard.check("a process", ("processes", "cluster"))
        start(self)

    def guarded_system(command: str) -> int:
        guard.check("a process", ("processes", "cluster"))
        return system(command)

    subprocess.Popen.__init__ = guarded_popen
    multiprocessing.process.BaseProcess.start = guarded_start
    os.system = guarded_system


@contextlib.contextmanager
def torch_switches_kept() -> Iterator[None]:
    """Leave torch's switches as they were: commands that are called in this process set them."""
    threads = torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    found = torch.are_deterministic_algorithms_enabled()
    if (found, torch.is_deterministic_algorithms_warn_only_enabled()) != (deterministic, warn_only):
        # which imports torch's compiler
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.fixture(autouse=True)
def torch_switches() -> Iterator[None]:
    """Leave torch's switches as they were."""
    with torch_switches_kept():
        yield


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Leave the project's log as it was: a run that is called in this process takes it over."""
    log = logging.getLogger("bert_vits2_ray")
    handlers, propagate, level = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = handlers, propagate
    log.setLevel(level)


def start_ray(gpus: int = 0, dashboard: bool = False, **settings: Any) -> tuple[str, str]:
    """Start a Ray on loopback, with CPUS logical CPUs.

    Beside other work a start may fail: a port that it found free is taken, a process of its own is
    late. It is then tried again, with other ports and in another folder.

    Returns:
        Its temporary folder, and the address of its dashboard; "" if it has none.
    """
    import ray
    import ray.data

    from job.on_ray.private import start_on_loopback

    # its own level is DEBUG: it would flood pytest's reports
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for attempt in range(1, RAY_ATTEMPTS + 1):
        # short: the path of a unix socket has at most 107 characters
        folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        port = free_port() if dashboard else None
        try:
            start_on_loopback(
                CPUS,
                folder,
                port,
                num_gpus=gpus,  # logical too: torch sees none
                object_store_memory=256 * 2**20,
                configure_logging=False,
                **settings,
            )
            return folder, f"http://127.0.0.1:{port}" if dashboard else ""
        except Exception:
            logging.getLogger(__name__).warning(
                "Ray did not start, attempt %d of %d", attempt, RAY_ATTEMPTS, exc_info=True
            )
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
            if attempt == RAY_ATTEMPTS:
                raise
    raise AssertionError("not reached")


class SharedRay:
    """The Ray of this process, which modules share: to start and end one takes 10 CPU seconds.

    Attributes:
        gpus: how many logical GPUs it has.
        dashboard: address of its dashboard; "" if it has none.
    """

    def __init__(self) -> None:
        self.folder = ""  # none is up
        self.gpus = 0
        self.dashboard = ""

    def have(self, gpus: int = 0, dashboard: bool = False) -> None:
        """Have one with so many GPUs, and a dashboard if that is wanted."""
        fits = self.folder and self.gpus == gpus and (self.dashboard or not dashboard)
        if fits and self.is_free():
            return
        self.end()
        quick = {"RAY_metrics_report_interval_ms": "1000"} if dashboard else {}
        with mock.patch.dict(os.environ, quick):
            self.folder, self.dashboard = start_ray(gpus, dashboard)
        self.gpus = gpus

    def is_free(self) -> bool:
        """Tell whether nothing holds CPUs or GPUs of it any more, soon after a test."""
        import ray

        deadline = time.monotonic() + FREE_WITHIN_S
        while any(
            ray.available_resources().get(kind, 0) < amount
            for kind, amount in ray.cluster_resources().items()
            if kind in ("CPU", "GPU")
        ):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def end(self) -> None:
        """End it, if one is up."""
        if not self.folder:
            return
        import ray

        ray.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = ""


shared_ray = SharedRay()


def pytest_sessionfinish() -> None:
    """End the Ray that the modules shared."""
    shared_ray.end()
    forking.end()


@pytest.fixture(scope="module", autouse=True)
def no_ray_that_nobody_uses(request: pytest.FixtureRequest) -> None:
    """End the Ray of the modules before, if no test of this one uses it."""
    if shared_ray.folder and not any(
        item.path == request.path and "ray_shared" in getattr(item, "fixturenames", ())
        for item in request.session.items
    ):
        shared_ray.end()


@pytest.fixture(scope="session")
def ray_shared() -> SharedRay:
    """The Ray of this process, which is up when it is asked for."""
    return shared_ray


@pytest.fixture(scope="module")
def ray_local(ray_shared: SharedRay, request: pytest.FixtureRequest) -> None:
    """A Ray with as many logical GPUs as the module's GPUS says."""
    ray_shared.have(getattr(request.module, "GPUS", 0))
