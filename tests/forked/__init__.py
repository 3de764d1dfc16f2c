"""Has Ray's workers in tests forked from one process, which has imported torch for all of them."""

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

SERVER = "TESTS_FORK_SERVER"
HOOK = Path(__file__).parent  # with a sitecustomize, which Python imports when it starts


class Forking:
    """The server of forks of this process's Rays.

    Attributes:
        socket: where it answers: until it is there, workers have imports of their own.
    """

    def __init__(self) -> None:
        # sockets must have short names; there only with a server: workers import this module, too
        self.folder = Path("/tmp", f"fork{uuid.uuid4().hex[:12]}")
        self.socket = self.folder / "server"
        self.process: subprocess.Popen | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment with which processes hand over Ray's workers."""
        path = filter(None, [str(HOOK), os.environ.get("PYTHONPATH")])
        return {SERVER: str(self.socket), "PYTHONPATH": os.pathsep.join(path)}

    def have(self) -> None:
        """Start the server, if that was not done."""
        if self.process is None:
            self.folder.mkdir(mode=0o700)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked.server", str(self.socket)],
                cwd=HOOK.parents[1],
                # workers of one CPU: Ray has them compute in one thread
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def end(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
