"""examples/without_ray.py does what it says, and Ray is not loaded."""

import os
import re
import subprocess
import sys

import pytest
import soundfile

from tests.test_house import ROOT

# the script as `python -m examples.without_ray`, and then what was imported
PROGRAM = """
import runpy, sys
runpy.run_module("examples.without_ray", run_name="__main__", alter_sys=True)
assert "ray" not in sys.modules, "Ray was imported"
"""


@pytest.mark.processes
def test_the_script_trains_saves_loads_and_speaks(shards, tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(shards), str(tmp_path / "out")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    lines = done.stdout.splitlines()
    assert lines[0] == "10 utterances, 1 global steps per epoch"
    for number, line in enumerate(lines[1:4], 1):
        assert re.fullmatch(rf"step {number}: mel loss \d+\.\d\d", line)
    assert lines[4] == "saved and loaded step 3"
    assert lines[5].endswith("hello.wav")

    wave, rate = soundfile.read(tmp_path / "out/hello.wav")
    assert rate == 44100
    assert len(wave) > 0
