"""Where a command runs: the cluster that it was submitted to, or a local Ray of its own."""

import contextlib
import math
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.gpu import gpu_trouble
from job.on_ray.authentication import keep_no_token, wants_a_token
from job.on_ray.private import (
    create_data_actors,
    forbid_clusters,
    quieten_snapshots,
    start_on_loopback,
)
from job.on_ray.watching.quiet import quieten_driver
from job.on_ray.watching.standard_error import quiet_standard_error
from job.settings.config import Config

ANSWER_WITHIN_S = 10.0
SETTINGS_WITHIN_S = 1.0
# the beginning of a connection, and an empty frame of settings
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
LOOK_WITHIN_S = 60.0  # a process that imports torch


def on_cluster() -> bool:
    """Return whether this command runs on a cluster that existed before it."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def ray_session(cfg: Config) -> Iterator[None]:
    """Connect to the cluster of RAY_ADDRESS, which `ray job submit` sets, or start a local Ray.

    A local Ray listens on loopback only and has logical CPUs for all workers and for the data
    pipeline, whatever the machine has, so that the same configuration runs anywhere.

    Raises:
        ValueError: on Windows, which Ray Train's process groups do not support.
    """
    if sys.platform == "win32":
        raise ValueError("Windows is not supported: use Linux, or WSL 2")
    # a trial of a sweep, or a test: whoever has started Ray also ends it
    if ray.is_initialized():
        yield
        return

    quieten_snapshots()
    with quiet_standard_error():
        if on_cluster():
            connect()
        else:
            start_local_ray(cfg)
        quieten_driver()
        try:
            yield
        finally:
            ray.shutdown()


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS.

    Raises:
        ValueError: no cluster is there, or one with encrypted channels, or it asks for its token.
    """
    check_address(ray_address())
    try:
        ray.init()
    except AuthenticationError as error:
        raise ValueError(wants_a_token(f"the cluster at {ray_address()}", error)) from error
    keep_data_actors_here()


def what_starts() -> str:
    """Return in words what `ray_session` will do."""
    if ray.is_initialized():
        return "using the Ray that is up"
    return f"connecting to the cluster at {ray_address()}" if on_cluster() else "starting Ray"


def ray_address() -> str:
    """Return the address of the cluster that this command runs on."""
    return os.environ["RAY_ADDRESS"]


def check_address(address: str) -> None:
    """Refuse an address where no cluster is: Ray itself would try for minutes.

    Args:
        address: value of RAY_ADDRESS.

    Raises:
        ValueError: says what is wrong with it.
    """
    scheme, _, rest = address.rpartition("://")
    if scheme:
        raise ValueError(
            f"RAY_ADDRESS is {address}: {scheme}:// is for submitting jobs; use "
            "`python -m job.submit`, or unset it to run on this machine"
        )
    host, _, port = rest.rpartition(":")
    if address in ("auto", "local") or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_WITHIN_S) as there:
            encrypted = is_encrypted(there)
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS is {address}: no cluster answers there ({error}): start it, correct the "
            "address, or unset it to run on this machine"
        ) from error
    ours = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
    if encrypted is not None and encrypted != ours:
        raise ValueError(
            f"RAY_ADDRESS is {address}: the cluster there {'has' if encrypted else 'has no'} "
            f"encrypted channels: {'set' if encrypted else 'unset'} RAY_USE_TLS (docs/security.md)"
        )


def is_encrypted(there: socket.socket) -> bool | None:
    """Tell whether a gRPC server wants TLS; None if it does not say.

    To what begins an unencrypted connection (RFC 9113, section 3.4) one without TLS answers with
    its settings, one with TLS by ending the connection. Ray itself would wait for minutes.

    Args:
        there: a new connection.
    """
    there.settimeout(SETTINGS_WITHIN_S)
    try:
        there.sendall(HTTP_2)
        return there.recv(1) == b""
    except TimeoutError:
        return None
    except ConnectionError:
        return True


def start_local_ray(cfg: Config) -> None:
    """Start a Ray on this machine with logical CPUs for all that the configuration needs."""
    _, workers = cfg.scaling.bounds
    needed = math.ceil(workers * cfg.scaling.cpus_per_worker) + cfg.data.loader_count
    # Ray's default of 15 lets its workers starve beside any other work
    os.environ.setdefault("RAY_worker_niceness", "0")
    listen_on_loopback_only()
    keep_no_token()
    start_on_loopback(max(os.cpu_count() or 1, needed), os.environ.get("BERT_VITS2_RAY_TMP"))


def keep_data_actors_here() -> None:
    """Create the actors that Ray Data never ends on this node, usually the head.

    Ray Data creates each on the node that first asks for it. That would be a worker's, as the
    workers run the datasets, and a GPU node on which an actor lives is never idle: the autoscaler
    would leave it running after the job.
    """
    create_data_actors()


def listen_on_loopback_only() -> None:
    """Have a local Ray, and the workers' process groups, open no port to the network.

    Ray replaces the loopback address by the machine's own where clusters are enabled, as they are
    on Linux. The switch is Ray's for Windows and macOS.
    """
    forbid_clusters()
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")


def use_gpu(cfg: Config) -> bool:
    """Return whether each worker takes a GPU.

    On a cluster, scaling.device cuda is taken at its word: the autoscaler may start GPU nodes from
    none, and Ray does not tell what it could start.

    Raises:
        ValueError: scaling.device is cuda, and this machine has no GPU.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    require_gpu(cfg, gpus)
    if cfg.scaling.device == "cuda" and not gpus:
        print(
            "no GPU is up yet: waits until the autoscaler has started one (`ray status` tells "
            "what it does)"
        )
    return takes_gpus(cfg, gpus)


def takes_gpus(cfg: Config, gpus: float) -> bool:
    """Return whether each worker takes a GPU, where so many are up."""
    return cfg.scaling.device == "cuda" or (cfg.scaling.device == "auto" and gpus > 0)


def check_device(cfg: Config) -> None:
    """Refuse GPUs that are missing, or that torch cannot use; Ray is up.

    Nodes that an autoscaler starts later are looked at by the workers.

    Raises:
        ValueError: names the key.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    require_gpu(cfg, gpus)
    if cfg.scaling.device == "auto" and not gpus:
        print("note: scaling.device is auto and no GPU is up: trains on CPUs", flush=True)
    if cfg.scaling.device == "cpu" or not gpus:
        return
    if trouble := gpus_in_trouble(cfg.train.precision):
        raise ValueError(f"{trouble}; or set scaling.device cpu")


def gpus_in_trouble(precision: str = "fp32") -> str:
    """Return why torch cannot use the GPUs of a node that is up, in one line; "" if it can.

    A node that does not answer in time is left to those who will use it.

    Args:
        precision: what is computed in, as train.precision.
    """
    ask: Any = ray.remote(gpu_trouble)
    asked = {
        node["NodeManagerAddress"]: ask.options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(precision)
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    }
    for address, answer in asked.items():
        with contextlib.suppress(RayError):
            if trouble := ray.get(answer, timeout=LOOK_WITHIN_S):
                return f"Ray has GPUs on {address}, but {trouble}"
    return ""


def require_gpu(cfg: Config, gpus: float) -> None:
    """Refuse a machine without a GPU if the configuration wants one, and no autoscaler can help.

    Args:
        cfg: the configuration.
        gpus: number of GPUs that are up.

    Raises:
        ValueError: names the key.
    """
    if cfg.scaling.device == "cuda" and not gpus and not on_cluster():
        raise ValueError(
            "scaling.device is cuda, but this machine has no GPU: set it to auto or cpu, or use a "
            "machine with a GPU"
        )
