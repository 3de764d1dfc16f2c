"""The runner of the fast suite: an end of pytest without a summary is told, and made up for."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.test_house import ROOT
from tools.record_tests import units

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
# each waits until the other has begun: only two processes can run them, each of them once
MEETING = """
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

def test_meets():
    Path("FOLDER/OWN").touch(exist_ok=False)
    deadline = time.monotonic() + 60
    while not Path("FOLDER/OTHER").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""
LASTING = """
import os
import time
from pathlib import Path

def test_lasts():
    Path("FOLDER/process").write_text(str(os.getpid()))
    time.sleep(600)
"""
INI = "[pytest]\nmarkers =\n  slow\n  cluster\n"


def run(folder, always=False, two=2) -> tuple[int, str]:
    """Return the status and the output of the runner on a suite with such tests."""
    suite = SUITE.replace("SEEN", str(folder / "seen"))
    suite = suite.replace("ALWAYS", str(always)).replace("TWO", str(two))
    (folder / "test_suite.py").write_text(suite)
    return run_suite(folder)


def start_suite(folder) -> subprocess.Popen:
    """Start the runner on the modules of a folder."""
    (folder / "pytest.ini").write_text(INI)
    options = [folder, "-c", folder / "pytest.ini", "-p", "no:cacheprovider"]
    return subprocess.Popen(
        [sys.executable, "-m", "tools.run_tests", *options],
        cwd=ROOT,
        env=os.environ | {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_suite(folder) -> tuple[int, str]:
    """Return the status and the output of the runner on the modules of a folder."""
    runner = start_suite(folder)
    output, _ = runner.communicate()
    return runner.returncode, output


def test_a_lost_process_is_told_and_its_tests_are_run_by_another(tmp_path):
    status, output = run(tmp_path)
    lost = re.search(
        r"the part (\w+) ended without a summary, with status 1, in "
        r"test_suite.py::test_that_may_end_its_process; [12] of its tests were done",
        output,
    )
    assert lost
    assert f"the part {lost[1]} continues with the tests that were not done" in output
    assert " 4 passed in " in output.splitlines()[-1]
    assert status == 0


def test_a_process_takes_what_the_other_one_has_not_begun(tmp_path):
    suite = MEETING.replace("FOLDER", str(tmp_path))
    (tmp_path / "test_one.py").write_text(suite.replace("OWN", "one").replace("OTHER", "two"))
    (tmp_path / "test_two.py").write_text(suite.replace("OWN", "two").replace("OTHER", "one"))
    status, output = run_suite(tmp_path)
    assert " 2 passed in " in output.splitlines()[-1]
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


def test_a_terminated_runner_leaves_no_process(tmp_path):
    (tmp_path / "test_lasting.py").write_text(LASTING.replace("FOLDER", str(tmp_path)))
    runner = start_suite(tmp_path)
    told = tmp_path / "process"
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.terminate()
    runner.communicate(timeout=60)
    assert runner.returncode == 128 + signal.SIGINT
    assert not Path(f"/proc/{told.read_text()}").exists()


def test_a_module_that_uses_anothers_results_is_taken_with_it():
    def item(name: str, **module: str) -> SimpleNamespace:
        return SimpleNamespace(
            path=Path(name), module=SimpleNamespace(**module), get_closest_marker=lambda _: None
        )

    steps, apart, of_steps = item("steps"), item("apart"), item("of_steps", BESIDE="steps")
    assert units([steps, apart, of_steps]) == [[steps, of_steps], [apart]]
