"""A cluster that is not there is refused at once, rather than asked for minutes."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from job.on_ray.cluster import check_address
from tests.job.on_ray.test_tls import certificates


def test_a_dead_address_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_address(f"127.0.0.1:{port}")
    with pytest.raises(ValueError, match=f"RAY_ADDRESS is 127.0.0.1:{port}: no cluster answers"):
        check_address(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_an_address_for_jobs_is_named(address):
    with pytest.raises(ValueError, match=r"is for submitting jobs; use `python -m job\.submit`"):
        check_address(address)


@pytest.mark.parametrize("address", ["auto", "local"])
def test_ray_finds_its_own(address):
    check_address(address)


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[dict[bool, str]]:
    """Whether it is encrypted -> address of a gRPC server, as that of Ray's control store."""
    env = certificates(tmp_path_factory.mktemp("certificates"))
    names = ("RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT", "RAY_TLS_CA_CERT")
    key, certificate, authority = (Path(env[name]).read_bytes() for name in names)
    asks = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
    plain, encrypted = (grpc.server(ThreadPoolExecutor(1)) for _ in range(2))
    ports = {
        False: plain.add_insecure_port("127.0.0.1:0"),
        True: encrypted.add_secure_port("127.0.0.1:0", asks),
    }
    for server in (plain, encrypted):
        server.start()
    yield {is_so: f"127.0.0.1:{port}" for is_so, port in ports.items()}
    for server in (plain, encrypted):
        server.stop(None)


@pytest.mark.processes
def test_channels_that_do_not_fit_are_refused_in_a_line(servers, monkeypatch):
    check_address(servers[False])
    with pytest.raises(ValueError, match=r"has encrypted channels: set RAY_USE_TLS \(docs"):
        check_address(servers[True])
    monkeypatch.setenv("RAY_USE_TLS", "1")
    check_address(servers[True])
    with pytest.raises(ValueError, match=r"has no encrypted channels: unset RAY_USE_TLS"):
        check_address(servers[False])
