"""A process that has imported torch and transformers, of which Ray's workers in tests are forks.

To import them takes four CPU seconds, more than most of what workers do in tests. This is the way of
Python's own `forkserver`, for processes that Ray starts: `sitecustomize.py` beside this module hands
them over. Ray itself is imported after the fork, so that a worker reads its own environment.

    python -m tests.forked.server SOCKET
"""

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

from tools.local_cluster import NODE_MARK

PRELOADED = [
    "numpy.random",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "torch.distributed",
    "torch.nn.parallel",
    "transformers.models.bert.modeling_bert",
    "transformers.models.wavlm.modeling_wavlm",
]
# read when torch, numpy or Python itself start: a fork cannot be given others
READ_AT_START = ("ARROW_", "CUDA_", "KMP_", "LANG", "LC_", "LD_", "MKL_", "OMP_", "OPENBLAS_")
READ_AT_START += ("PYTHON", "PYTORCH", "TORCH", "TRANSFORMERS_", "HF_", "TRITON_")
# but these: a fork is given the path of modules, and its driver or Ray has set the others
MAY_DIFFER = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONBREAKPOINT", "CUDA_VISIBLE_DEVICES")
MAY_DIFFER += ("TORCHINDUCTOR_CACHE_DIR",)
FILES = 3  # standard input, output and error
LENGTH = struct.Struct("<I")


def settings_of(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that a fork has to share with this process.

    Ray has a worker of one CPU compute in one thread, where nothing else is asked for.
    """
    return {
        name: value
        for name, value in ({"OMP_NUM_THREADS": "1"} | environment).items()
        if name.startswith(READ_AT_START) and name not in MAY_DIFFER
    }


class ForkServer:
    """Answers each request with a fork, and tells who asked how that has ended."""

    def __init__(self, path: str, own: dict[str, str]):
        """Listen on a Unix socket.

        Args:
            path: where.
            own: environment with which what is imported was imported.
        """
        self.own = settings_of(own)
        self.asking: dict[int, socket.socket] = {}  # process -> who waits for its end
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.wakeup, self.waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Serve until the process that started this one is gone."""
        parent = os.getppid()
        while os.getppid() == parent:
            for key, _ in self.selector.select(timeout=1):
                if key.fileobj is self.listener:
                    self.selector.register(self.listener.accept()[0], selectors.EVENT_READ)
                elif key.fileobj == self.wakeup:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wakeup, 4096)
                else:
                    self.hear(key.fileobj)
            self.tell_ends()

    def hear(self, asker: Any) -> None:
        """Take a request; or, where who asked is gone, end its process."""
        with contextlib.suppress(OSError):
            request, files = read_request(asker)
            if request is not None:
                self.answer(asker, request, files)
                return
        for process, other in self.asking.items():
            if other is asker:
                os.kill(process, signal.SIGKILL)
        self.selector.unregister(asker)
        asker.close()

    def answer(self, asker: socket.socket, request: dict, files: list[int]) -> None:
        """Fork, if a fork can be what is asked for."""
        environment = request["environment"]
        fits = (
            settings_of(environment) == self.own
            and NODE_MARK not in environment  # such processes are found by their own environment
            and request["network"] == os.readlink("/proc/self/ns/net")
        )
        asker.sendall(b"y" if fits else b"n")
        if fits:
            process = os.fork()
            if process == 0:
                self.leave()
                become(request, files)
            self.asking[process] = asker
        for file in files:
            os.close(file)

    def leave(self) -> None:
        """Close what belongs to the server alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in list(self.selector.get_map().values()):
            if key.fileobj != self.wakeup:
                key.fileobj.close()
        self.selector.close()
        os.close(self.wakeup)
        os.close(self.waker)

    def tell_ends(self) -> None:
        """Tell who asked what has become of its process."""
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    return
                asker = self.asking.pop(process)
                with contextlib.suppress(OSError):
                    asker.sendall(LENGTH.pack(status))


def read_request(asker: socket.socket) -> tuple[dict | None, list[int]]:
    """Read a request and the files that come with it; None where who asked is gone."""
    head, files, _, _ = socket.recv_fds(asker, LENGTH.size, FILES)
    if not head:
        return None, []
    (length,) = LENGTH.unpack(head)
    content = b""
    while len(content) < length:
        content += asker.recv(length - len(content))
    return json.loads(content), files


def become(request: dict, files: list[int]) -> NoReturn:
    """Be the Python process that was asked for, to its end."""
    status = 1
    try:
        os.setsid()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
        sys.path[:] = request["path"]
        seed()
        sys.argv = request["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def seed() -> None:
    """Draw random numbers of its own, where a new process would."""
    import numpy as np

    np.random.seed()


def main(path: str) -> None:
    """Import what workers import, and serve."""
    own = dict(os.environ)
    for name in PRELOADED:
        importlib.import_module(name)
    ForkServer(path, own).serve()


if __name__ == "__main__":
    main(sys.argv[1])
