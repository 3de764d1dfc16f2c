"""A run on one machine: it listens on loopback only, and its secrets end nowhere."""

import ipaddress
import time
from pathlib import Path

import psutil
import pytest

from tests.job.conftest import arguments

SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
pytestmark = pytest.mark.slow  # a run of its own
# torch's TCPStore of rank 0, which cannot be told where to listen (docs/security.md)
TORCH_STORE = 1


@pytest.fixture(scope="module")
def watched(command, shards, tmp_path_factory) -> tuple[Path, set[tuple[str, str, int]]]:
    """The folder of a run that had secrets in its environment, and where its processes listened."""
    storage, heard = tmp_path_factory.mktemp("runs"), set()
    env = command.env
    command.env = env | {name: f"canary-{name}" for name in SECRETS}
    try:
        process = command.start(
            "job.train",
            *arguments(shards, storage, run__name="a", train__max_steps=4, eval__every_steps=4),
        )
    finally:
        command.env = env
    known = {process.pid: psutil.Process(process.pid)}
    while process.poll() is None:
        known |= {child.pid: child for child in children(process.pid)}
        for one in known.values():
            heard |= listens(one)
        time.sleep(0.3)
    assert process.returncode == 0
    return storage, heard


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def listens(process: psutil.Process) -> set[tuple[str, str, int]]:
    """(name, address, port) of each socket that a process listens on."""
    try:
        name = process.name()
        found = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()
    return {(name, address.ip.removeprefix("::ffff:"), address.port) for address in found}


def test_a_local_run_listens_on_loopback_alone(watched):
    _, heard = watched
    assert len(heard) > 10
    open_to_all = {
        (name, port) for name, ip, port in heard if not ipaddress.ip_address(ip).is_loopback
    }
    assert len({port for _, port in open_to_all}) <= TORCH_STORE, open_to_all
    # a worker, by whatever it does at the moment
    assert all(name.startswith("ray::") for name, _ in open_to_all)


def test_secrets_of_the_environment_end_nowhere(watched, command):
    storage, _ = watched
    searched = 0
    for folder in (storage, Path(command.env["BERT_VITS2_RAY_TMP"])):
        for path in (
            path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        ):
            content = path.read_bytes()
            assert not [name for name in SECRETS if f"canary-{name}".encode() in content], path
            searched += 1
    assert searched > 20
    assert (storage / "a/environment.json").exists()
    assert (storage / "a/config.yaml").exists()
