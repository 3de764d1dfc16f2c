"""What job.doctor asks of each node of a cluster; these functions run there."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ray
import torch
from huggingface_hub.constants import HF_HUB_CACHE

from data.files import below, located, put_file, reachable, read_file
from data.gpu import gpu_trouble
from trainable.compiling import compiler_trouble
from trainable.config import TrainConfig

STORAGE_BYTES = 16 * 2**20
CONNECT_WITHIN_S = 5.0


@dataclass(frozen=True)
class NodeReport:
    """A node as it sees itself.

    Attributes:
        node: address of the node.
        versions: package -> version, or `missing`; and `python`.
        gpus: name of each GPU.
        driver: version of NVIDIA's driver; empty without one.
        nccl: version that torch has; empty without CUDA.
        free_disk: free bytes below Ray's temporary folder.
        free_memory: bytes that processes may still take.
        shared_memory: free bytes of /dev/shm, where Ray's objects and torch's loaders lie.
        time: seconds since the epoch.
        write_s: seconds that it took to write STORAGE_BYTES to the storage; None if that failed.
        read_s: seconds that it took to read them back; None if that failed.
        storage_error: why it failed; empty if it did not.
        encoding: how the node's locale writes the names of files.
        cache: folder where models of the hub are kept.
        cache_error: why nothing can be written there; empty if it can.
        gpu_trouble: why torch cannot use the GPUs that Ray or torch sees; empty if it can.
        bf16: whether there are GPUs, and all compute bf16 themselves.
        compiler_trouble: why it cannot compile as train.compile asks; empty if it can.
    """

    node: str
    versions: dict[str, str]
    gpus: tuple[str, ...]
    driver: str
    nccl: str
    free_disk: int
    free_memory: int
    shared_memory: int
    time: float
    write_s: float | None
    read_s: float | None
    storage_error: str
    encoding: str = "utf-8"
    cache: str = ""
    cache_error: str = ""
    gpu_trouble: str = ""
    bf16: bool = False
    compiler_trouble: str = ""


def look(
    packages: tuple[str, ...], storage: str, train: TrainConfig, gpus: float = 0
) -> NodeReport:
    """Return the report of the node that this runs on.

    Args:
        packages: packages whose versions are reported.
        storage: folder or URI that is written to and read from.
        train: `precision`, `compile`.
        gpus: how many of them Ray has on this node.
    """
    names = gpu_names()
    write_s, read_s, error = try_storage(storage)
    versions = {name: _version(name) for name in packages}
    shm = Path("/dev/shm")
    return NodeReport(
        node=ray.util.get_node_ip_address(),
        versions={"python": platform.python_version(), **versions},
        gpus=names,
        driver=driver_version(),
        nccl=nccl_version(),
        free_disk=shutil.disk_usage(tempfile.gettempdir()).free,
        free_memory=free_memory(),
        shared_memory=shutil.disk_usage(shm).free if shm.is_dir() else 0,
        time=time.time(),
        write_s=write_s,
        read_s=read_s,
        storage_error=error,
        encoding=sys.getfilesystemencoding(),
        cache=HF_HUB_CACHE,
        cache_error=try_folder(HF_HUB_CACHE),
        gpu_trouble=gpu_trouble(train.precision) if gpus or names else "",
        bf16=bool(names) and not gpu_trouble("bf16"),
        compiler_trouble=compiler_trouble(train, gpu=bool(names)),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def gpu_names() -> tuple[str, ...]:
    """Return the names of the GPUs that torch can use."""
    if not torch.cuda.is_available():
        return ()
    return tuple(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))


def nccl_version() -> str:
    """Return the version of NCCL that torch has; empty without CUDA."""
    return ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else ""


def driver_version() -> str:
    """Return the version of NVIDIA's driver; empty without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(
        query, capture_output=True, encoding="utf-8", errors="replace", timeout=30
    )
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


def free_memory() -> int:
    """Return the bytes that processes may still take, of the machine and of this container."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024

    group = Path("/sys/fs/cgroup")
    limit = group / "memory.max"
    used = group / "memory.current"
    if (
        limit.is_file()
        and used.is_file()
        and (most := limit.read_text(encoding="utf-8").strip()) != "max"
    ):
        free = min(free, int(most) - int(used.read_text(encoding="utf-8")))
    return free


def try_folder(folder: str) -> str:
    """Return why nothing can be written in a folder, which is made if need be; empty if it can."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def try_storage(storage: str) -> tuple[float | None, float | None, str]:
    """Write STORAGE_BYTES to a storage, read them back and remove them.

    Args:
        storage: folder or URI.

    Returns:
        Seconds to write and to read, None if that failed; and why it failed, or an empty text.
    """
    uri = below(storage, f".doctor-{uuid.uuid4().hex}")
    content = os.urandom(STORAGE_BYTES)
    try:
        began = time.monotonic()
        put_file(uri, content)
        wrote = time.monotonic()
        same = read_file(uri) == content
        read = time.monotonic()
        with reachable(uri):
            fs, path = located(uri)
            fs.rm_file(path)
    except (OSError, ValueError) as error:
        return None, None, str(error)
    return wrote - began, read - wrote, "" if same else "what was read is not what was written"


class Listener:
    """An actor with an open port on its node; connections to it succeed without being accepted."""

    def __init__(self) -> None:
        self.node = ray.util.get_node_ip_address()
        self.server = socket.create_server((self.node, 0), backlog=1024)

    def address(self) -> tuple[str, int]:
        """Return address and port."""
        return self.node, self.server.getsockname()[1]


def unreachable(addresses: list[tuple[str, int]]) -> list[str]:
    """Return those of these nodes to which the node that this runs on cannot connect.

    Args:
        addresses: address and port of each node's listener.
    """
    failed = []
    for node, port in addresses:
        try:
            socket.create_connection((node, port), CONNECT_WITHIN_S).close()
        except OSError:
            failed.append(node)
    return failed
