"""The Triton kernels compile for GPUs that are not here, and fit into them."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# the least that a GPU with this code has: a T4, and a GeForce of the 30 series
SHARED = {75: 64 * 1024, 86: 99 * 1024}


@pytest.mark.processes
@pytest.mark.parametrize("capabilities", [(75, 90), pytest.param((86,), marks=pytest.mark.slow)])
def test_kernels_compile(capabilities, tmp_path):
    """In a process of its own: beside the interpreter nothing compiles."""
    settings = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.trainable.networks.kernels.compiled",
            *map(str, capabilities),
        ],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    for capability in capabilities:
        sizes = {kernel: int(size) for of, kernel, size in lines if of == str(capability)}
        assert len(sizes) >= 17
        assert max(sizes.values()) <= SHARED.get(capability, SHARED[86]), sizes
