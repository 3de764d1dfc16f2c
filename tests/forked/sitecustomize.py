"""Hands a Ray worker that Python is about to become to the fork server: see server.py beside it.

Python imports this module when it starts, where this folder is on PYTHONPATH. Without a server that
answers, or where a fork would be another process than the one asked for, it does nothing.
"""

import os
import sys


WORKER = "/ray/_private/workers/default_worker.py"


def hand_over(server: str) -> None:
    """Have the server fork what this process is to be, and end as that ends."""
    import json
    import signal
    import socket
    import struct

    request = {
        "argv": sys.orig_argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": [os.path.dirname(sys.orig_argv[1]), *sys.path],
        "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "network": os.readlink("/proc/self/ns/net"),
    }
    content = json.dumps(request).encode()
    asker = socket.socket(socket.AF_UNIX)
    try:
        asker.connect(server)
    except OSError:
        return  # it has not started yet, or is gone
    length = struct.pack("<I", len(content))
    socket.send_fds(asker, [length], [0, 1, 2])
    asker.sendall(content)
    if asker.recv(1) != b"y":
        return
    answer = asker.recv(4)
    status = struct.unpack("<I", answer)[0] if answer else signal.SIGKILL
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if status != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


if "TESTS_FORK_SERVER" in os.environ and "".join(sys.orig_argv[1:2]).endswith(WORKER):
    hand_over(os.environ["TESTS_FORK_SERVER"])
