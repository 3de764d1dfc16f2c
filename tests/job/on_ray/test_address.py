"""A cluster that is not there is refused at once, rather than asked for minutes."""

import socket

import pytest

from job.on_ray.cluster import check_address


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
