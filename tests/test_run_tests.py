"""The runner of the fast suite: an end of pytest without a summary is told, and made up for."""

import os
import subprocess
import sys

import pytest

from tests.test_house import ROOT

pytestmark = pytest.mark.processes

SUITE = """
import os
from pathlib import Path

import pytest

@pytest.mark.cluster
def test_before():
    pass

@pytest.mark.cluster
def test_that_may_end_its_process():
    seen = Path("SEEN")
    if not seen.exists() or ALWAYS:
        seen.write_text("")
        os._exit(1)  # as a Ray driver does when its raylet dies

@pytest.mark.cluster
def test_after():
    assert 1 + 1 == TWO

def test_without_a_cluster():
    pass

@pytest.mark.slow
def test_slow():
    raise AssertionError
"""
INI = "[pytest]\nmarkers =\n  slow\n  cluster\n"


def run(folder, always=False, two=2) -> tuple[int, str]:
    """Return the status and the output of the runner on a suite with such tests."""
    suite = SUITE.replace("SEEN", str(folder / "seen"))
    suite = suite.replace("ALWAYS", str(always)).replace("TWO", str(two))
    (folder / "test_suite.py").write_text(suite)
    (folder / "pytest.ini").write_text(INI)
    options = [folder, "-c", folder / "pytest.ini", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.run_tests", *options],
        cwd=ROOT,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_a_lost_process_is_told_and_its_tests_are_run_by_another(tmp_path):
    status, output = run(tmp_path)
    assert (
        "the part clusters ended without a summary, with status 1, in "
        "test_suite.py::test_that_may_end_its_process; 1 of its tests were done" in output
    )
    assert "the part clusters continues with the tests that were not done" in output
    assert " 4 passed in " in output.splitlines()[-1]
    assert status == 0


def test_a_test_that_always_ends_its_process_has_failed_and_the_others_are_run(tmp_path):
    status, output = run(tmp_path, always=True)
    *_, failed, closing = output.splitlines()
    assert failed == "FAILED test_suite.py::test_that_may_end_its_process"
    assert " 1 failed, 3 passed in " in closing
    assert status != 0


def test_a_failure_is_told_at_the_end(tmp_path):
    status, output = run(tmp_path, two=3)
    *_, failed, closing = output.splitlines()
    assert failed == "FAILED test_suite.py::test_after"
    assert " 1 failed, 3 passed in " in closing
    assert status == 1
