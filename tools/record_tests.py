"""A pytest plugin for processes that share a suite: it notes what runs, and takes what is free.

`pytest -p tools.record_tests` with the environment variable TESTS_RECORD writes a line of JSON when
a test begins, for what it comes to, when it is done, and at the end: so an end without a summary
can be explained. With TESTS_DONE, a file of node ids, these tests are left out: those that an
earlier process has done.

With TESTS_CLAIMS, a folder that the processes share, each takes one module after the other that no
other has taken, in the name of TESTS_PART: tests that start Ray first if that is CLUSTERS, never if
it is HELPER, last otherwise.
"""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RECORD = "TESTS_RECORD"
DONE = "TESTS_DONE"
CLAIMS = "TESTS_CLAIMS"
PART = "TESTS_PART"
CLUSTERS = "clusters"
HELPER = "helper"

LONG_S = 600  # a limit of a test from which on its module is begun early
Unit = list[pytest.Item]  # tests of a module that all start Ray, or none of which does
BESIDE = "BESIDE"  # in a module: the file of another, whose results it uses in the same process


def write(**line: Any) -> None:
    """Append a line to the record; the file is opened each time, so that no buffer can be lost."""
    if path := os.environ.get(RECORD):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is done."""
    if path := os.environ.get(DONE):
        done = set(Path(path).read_text(encoding="utf-8").splitlines())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
        items[:] = [item for item in items if item.nodeid not in done]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the units that this process can have, where others run beside it."""
    if CLAIMS not in os.environ or session.config.option.collectonly or session.testsfailed:
        return None
    for unit in in_order(units(session.items)):
        if is_ours(unit):
            run(session, unit)
    return True


def units(items: list[pytest.Item]) -> list[Unit]:
    """Return the tests by module and kind, in their order."""
    found: dict[tuple[str, bool], Unit] = {}
    for item in items:
        file = getattr(getattr(item, "module", None), BESIDE, str(item.path))
        found.setdefault((file, starts_ray(item)), []).append(item)
    return list(found.values())


def in_order(units: list[Unit]) -> Iterator[Unit]:
    """Yield the units of this process' own kind, and then the others from their end.

    So processes meet as late as may be. One that is begun last would leave the others with nothing
    to do: of those that start Ray, the long ones with a Ray of their own come first, and of each
    kind the longest. Then come those that share a prepared corpus, which another process would have
    to prepare again, and those that share a Ray.
    """
    clusters = [unit for unit in units if starts_ray(unit[0])]
    clusters.sort(key=longest, reverse=True)
    clusters.sort(key=kind)
    others = [unit for unit in units if not starts_ray(unit[0])]
    if os.environ[PART] == HELPER:
        clusters = []
    elif os.environ[PART] != CLUSTERS:
        clusters, others = others, clusters
    return itertools.chain(clusters, reversed(others))


def starts_ray(item: pytest.Item) -> bool:
    """Tell whether a test has the marker `cluster`."""
    return item.get_closest_marker("cluster") is not None


def kind(unit: Unit) -> int:
    """Return the place of a unit that starts Ray among the kinds of these."""
    shared = {name for item in unit for name in fixtures_of(item)}
    if "shards" in shared:
        return 1
    if "ray_shared" in shared:
        return 2
    return 0 if longest(unit) >= LONG_S else 3


def longest(unit: Unit) -> float:
    """Return the longest time that a test of the unit has asked for, in seconds."""
    limits = (item.get_closest_marker("timeout") for item in unit)
    return max((limit.args[0] for limit in limits if limit), default=0)


def fixtures_of(item: pytest.Item) -> list[str]:
    """Return the names of a test's fixtures."""
    return getattr(item, "fixturenames", [])


def is_ours(unit: Unit) -> bool:
    """Take a unit if no other process has; one that a lost process has left goes to its heir."""
    name = f"{unit[0].location[0].replace(os.sep, '.')}-{starts_ray(unit[0])}"
    claim = Path(os.environ[CLAIMS]) / name
    try:
        with claim.open("x", encoding="utf-8") as file:
            file.write(os.environ[PART])
    except FileExistsError:
        return claim.read_text(encoding="utf-8") == os.environ[PART]
    return True


def run(session: pytest.Session, unit: Unit) -> None:
    """Run tests as pytest does.

    Behind the last one all fixtures end but the session's: what comes next is not known yet.
    """
    following: list[Any] = [*unit[1:], session]
    for item, nextitem in zip(unit, following, strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid: str) -> None:
    """Note that a test begins."""
    write(begins=nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what a test has come to: its call, or a phase beside it that did not pass."""
    if report.when == "call" or not report.passed:
        failed = "failed" if report.when == "call" else "error"
        write(test=report.nodeid, outcome=failed if report.failed else report.outcome)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid: str) -> None:
    """Note that a test is done, the tear-down of its fixtures included."""
    write(done=nodeid)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Note that the summary is printed and pytest ends."""
    write(ends=True)
