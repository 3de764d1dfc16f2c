"""Hands a Ray worker that Python is about to become to the fork server: see server.py beside it.

Python imports this module when it starts, where this folder is on PYTHONPATH. Without a server that
answers, or where a fork would be another process than the one asked for, it does nothing.
It runs at the start of every Python process, so it imports nothing more before it has to.
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
        "folder": os.getcwd(),  # noqa: PTH109
        "path": [sys.orig_argv[1].rpartition("/")[0], *sys.path],
        "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }
    content = json.dumps(request).encode()
    asker = socket.socket(socket.AF_UNIX)
    try:
        asker.connect(server)
    except OSError:
        return  # it has not started yet, or is gone
    length = struct.pack("<I", len(content))
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(asker, [length], [0, 1, 2, network])
    asker.sendall(content)
    if asker.recv(1) != b"y":
        return
    answer = asker.recv(4)
    status = struct.unpack("<i", answer)[0] if answer else -signal.SIGKILL
    if status < 0:
        # a signal that Python handles would be an exception here
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-status])
        signal.signal(-status, signal.SIG_DFL) if status != -signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


if "TESTS_FORK_SERVER" in os.environ and "".join(sys.orig_argv[1:2]).endswith(WORKER):
    hand_over(os.environ["TESTS_FORK_SERVER"])
