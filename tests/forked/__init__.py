"""Has Ray's workers in tests forked from one process, which has imported torch for all of them."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

SERVER = "TESTS_FORK_SERVER"
HOOK = Path(__file__).parent  # with a sitecustomize, which Python imports when it starts


@contextlib.contextmanager
def workers_forked() -> Iterator[Path]:
    """Have the workers of every Ray that is started from here forked.

    Yields:
        The server's socket: until it is there, workers have imports of their own.
    """
    path = os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="fork", dir="/tmp") as folder:
        socket = Path(folder, "server")
        # workers of one CPU: Ray has them compute in one thread
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked.server", str(socket)],
            cwd=HOOK.parents[1],
            env=environment,
        )
        with mock.patch.dict(os.environ, {SERVER: str(socket), "PYTHONPATH": path}):
            yield socket
        process.terminate()
        process.wait()
