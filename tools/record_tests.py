"""A pytest plugin that notes which test runs, so that an end without a summary can be explained.

`pytest -p tools.record_tests` with the environment variable TESTS_RECORD writes a line of JSON when
a test begins, for what it comes to, when it is done, and at the end. With TESTS_DONE, a file of
node ids, these tests are left out: those that an earlier process has done.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

RECORD = "TESTS_RECORD"
DONE = "TESTS_DONE"


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
