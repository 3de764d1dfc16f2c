"""A test starts what its markers say: `make test-quick` relies on it."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest

from tests.conftest import CLUSTER_FIXTURES, LIMIT_CPU_S, Guard, pytest_collection_modifyitems


class FakeItem:
    nodeid = "test_fake.py::test_fake"

    def __init__(self, fixturenames: list[str], **params: str):
        self.fixturenames = fixturenames
        self.callspec = SimpleNamespace(params=params)
        self.markers: list[str] = []

    def add_marker(self, name: str) -> None:
        self.markers.append(name)

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.markers else None


def refused(what: str) -> AbstractContextManager:
    return pytest.raises(pytest.fail.Exception, match=f"starts {what} and is not marked so")


def test_what_is_not_marked_starts_nothing():
    with refused("a process"):
        subprocess.run([sys.executable, "-c", ""])
    with refused("a process"):
        os.system("true")
    for method in ("spawn", "forkserver", "fork"):
        with refused("a process"):
            multiprocessing.get_context(method).Process(target=print).start()


@pytest.mark.processes
def test_what_starts_processes_does_not_start_ray():
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0
    for program in ("gcs_server", "raylet"):
        with refused("Ray"):
            subprocess.Popen([f"/anywhere/{program}", "--port=0"])


@pytest.mark.parametrize("fixture", sorted(CLUSTER_FIXTURES))
def test_a_fixture_that_starts_ray_marks_its_test(fixture):
    item = FakeItem([fixture])
    others = [FakeItem(["tmp_path"]), FakeItem([fixture], **{fixture: "a parameter"})]
    pytest_collection_modifyitems([item, *others])
    assert (item.markers, *(other.markers for other in others)) == (["cluster"], [], [])


@pytest.mark.parametrize(
    ("marker", "share", "told", "fails"),
    [
        (None, 0.1, False, False),
        (None, 0.5, True, False),
        (None, 1.5, True, True),
        ("medium", 1.5, False, False),
    ],
)
def test_what_computes_for_long_says_so(marker, share, told, fails):
    own, item = Guard(), FakeItem([])
    item.markers += [marker] if marker else []
    expected = pytest.raises(pytest.fail.Exception, match="is not marked so: mark it with @pytest")
    with expected if fails else contextlib.nullcontext():
        own.check_length(item, share * LIMIT_CPU_S)
    assert bool(own.long) == told
