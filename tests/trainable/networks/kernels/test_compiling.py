"""The Triton kernels compile for GPUs that are not here, and fit into them."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# the least that a GPU with this code has: a T4, and a GeForce of the 30 series
SHARED = {75: 64 * 1024, 86: 99 * 1024}


@pytest.mark.processes
@pytest.mark.parametrize("capability", [75, pytest.param(86, marks=pytest.mark.slow), 90])
def test_kernels_compile(capability, tmp_path):
    """In a process of its own: beside the interpreter nothing compiles."""
    settings = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainable.networks.kernels.compiled", str(capability)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sizes = dict(line.split() for line in done.stdout.splitlines())
    assert len(sizes) >= 17
    assert max(map(int, sizes.values())) <= SHARED.get(capability, SHARED[86]), sizes
