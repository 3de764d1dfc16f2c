"""A process that has imported what workers need, of which Ray's workers in tests are forks.

To import torch and transformers takes four CPU seconds, more than most of what workers do in tests.
This is the way of Python's own `forkserver`, for processes that Ray starts: `sitecustomize.py`
beside this module hands them over. Ray itself is imported after the fork: a worker reads its own
environment.

    python -m tests.forked.server SOCKET
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# none of them starts a thread, as onnxruntime does: a fork would lack it
PRELOADED = [
    "hypothesis",
    "jieba.posseg",
    "jsonargparse",
    "matplotlib.pyplot",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pypinyin",
    "pytest",
    "rich.console",
    "s3fs",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.utils.tensorboard",
    "transformers.models.bert.modeling_bert",
    "transformers.models.wavlm.modeling_wavlm",
    "wetext",
]
# read when torch, numpy or Python itself start: a fork cannot be given others
READ_AT_START = ("ARROW_", "CUDA_", "KMP_", "LANG", "LC_", "LD_", "MKL_", "OMP_", "OPENBLAS_")
READ_AT_START += ("PYTHON", "PYTORCH", "TORCH", "TRANSFORMERS_", "HF_", "TRITON_")
# but these: a fork is given the path of modules, and its driver or Ray has set the others
MAY_DIFFER = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONBREAKPOINT", "CUDA_VISIBLE_DEVICES")
MAY_DIFFER += ("TORCHINDUCTOR_CACHE_DIR",)
FILES = 4  # standard input, output and error, and the network namespace
LENGTH = struct.Struct("<I")
STATUS = struct.Struct("<i")


def settings_of(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that a fork has to share with this process.

    Ray has a worker of one CPU compute in one thread, where nothing else is asked for.
    """
    return {
        name: value
        for name, value in ({"OMP_NUM_THREADS": "1"} | environment).items()
        if name.startswith(READ_AT_START) and name not in MAY_DIFFER
    }


@dataclass
class Request:
    """A Python process that is to be.

    Attributes:
        argv: its script and arguments.
        environment: its environment variables.
        folder: its working directory.
        path: where it finds modules.
        blocked: signals that do not reach it.
        files: its standard input, output and error, and its network namespace.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str
    path: list[str]
    blocked: list[int]
    files: list[int]

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            os.close(file)


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
        self.listener.bind(f"{path}.new")
        self.listener.listen(64)
        Path(f"{path}.new").rename(path)  # whoever sees it is answered
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.wakeup, self.waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)

    def serve(self) -> Request | None:
        """Serve until the process that started this one is gone.

        Returns:
            In a fork: what it is to be.
        """
        parent = os.getppid()
        while os.getppid() == parent:
            for key, _ in self.selector.select(timeout=1):
                if key.fileobj is self.listener:
                    self.selector.register(self.listener.accept()[0], selectors.EVENT_READ)
                elif key.fileobj == self.wakeup:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wakeup, 4096)
                elif (request := read_request(key.fileobj)) is None:
                    self.forget(key.fileobj)
                elif self.answer(key.fileobj, request):
                    return request
            self.tell_ends()
        return None

    def forget(self, asker: Any) -> None:
        """Who asked is gone: end its process."""
        for process, other in self.asking.items():
            if other is asker:
                os.kill(process, signal.SIGKILL)
        self.selector.unregister(asker)
        asker.close()

    def fits(self, request: Request) -> bool:
        """Tell whether a fork of this process can be what is asked for."""
        return settings_of(request.environment) == self.own

    def answer(self, asker: Any, request: Request) -> bool:
        """Fork if that fits; return whether this is the fork."""
        fits = self.fits(request)
        process = os.fork() if fits else None
        if process == 0:
            self.leave()
            return True
        if process is not None:
            self.asking[process] = asker
        with contextlib.suppress(ConnectionError):
            asker.sendall(b"y" if fits else b"n")
        request.close()
        return False

    def leave(self) -> None:
        """In a fork: close what belongs to the server alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in self.selector.get_map().values():
            if isinstance(key.fileobj, socket.socket):
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
                    asker.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def read_request(asker: Any) -> Request | None:
    """Read a request and the files that come with it; None where who asked is gone."""
    try:
        head, files, _, _ = socket.recv_fds(asker, LENGTH.size, FILES)
        content = asker.recv(*LENGTH.unpack(head), socket.MSG_WAITALL) if head else b""
    except ConnectionError:
        return None
    return Request(**json.loads(content), files=files) if content else None


def enter(network: int) -> None:
    """Enter a network namespace, that of a node."""
    if not os.path.samestat(os.fstat(network), Path("/proc/self/ns/net").stat()):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(network, 0):
            raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def become(request: Request) -> None:
    """Be the Python process that is asked for, but for what it runs."""
    os.setsid()
    *standard, network = request.files
    for target, file in enumerate(standard):
        os.dup2(file, target)
    enter(network)
    request.close()
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)
    sys.path[:] = request.path
    sys.argv = request.argv
    np.random.seed()  # numbers of its own, as a new process draws


def preload() -> None:
    """Have all that forks share, where their collections of garbage do not look."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of jieba, which imports pkg_resources
        for name in PRELOADED:
            importlib.import_module(name)
    jieba = sys.modules["jieba"]
    jieba.setLogLevel("WARNING")
    jieba.posseg.dt.initialize()
    gc.freeze()


def main(path: str) -> None:
    """Import what workers import, and serve."""
    own = dict(os.environ)
    preload()
    request = ForkServer(path, own).serve()
    if request is not None:
        become(request)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
