"""Fixtures that several packages' tests share."""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
import torch

# a token in the home folder would make later clusters of this machine ask for it
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# workers run at nice 15 by default: beside other work they would starve
os.environ.setdefault("RAY_worker_niceness", "0")

# a shell's background jobs ignore Ctrl-C, and the commands that tests start would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# threads that wait for each other spin, and on a busy machine that costs more than they bring
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A Ray of its own for a test module: two logical CPUs, loopback only, in a temporary folder."""
    import ray
    import ray.data

    # its own level is DEBUG: it would flood pytest's reports
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # short: the path of a unix socket has at most 107 characters
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        object_store_memory=256 * 2**20,
        configure_logging=False,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
