"""A cluster whose gRPC channels are encrypted (docs/security.md): all that users do on it works."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.job.conftest import ROOT, metrics
from tests.job.test_elastic import OPTIONS
from tools.cluster_run import DEMO
from tools.local_cluster import LocalCluster

# those of tools/local_cluster.py, with namespaces and without
ADDRESSES = [f"{net}.{host}" for net in ("10.213.0", "127.0.0") for host in range(1, 9)]
KEY = "-newkey rsa:2048 -nodes"


def certificates(folder: Path) -> dict[str, str]:
    """Make an authority, and a certificate of all nodes; return Ray's variables for them."""
    names = ",".join([*(f"IP:{address}" for address in ADDRESSES), "DNS:localhost"])
    (folder / "names").write_text(f"subjectAltName={names}\n")
    for command in (
        f"req -x509 {KEY} -days 2 -subj /CN=authority -out ca.crt -keyout ca.key",
        f"req {KEY} -subj /CN=nodes -out node.csr -keyout node.key",
        "x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out node.crt -days 2 "
        "-extfile names",
    ):
        subprocess.run(
            ["openssl", *command.split()], cwd=folder, check=True, capture_output=True, timeout=60
        )
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[LocalCluster]:
    """An encrypted cluster of a head and a worker node."""
    env = certificates(tmp_path_factory.mktemp("certificates"))
    with LocalCluster(workers=1, dashboard=True, env=env) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_encrypted_cluster_trains_and_is_watched(cluster, shards, tmp_path):
    options = OPTIONS | {
        "data.shards": shards,
        "run.storage": tmp_path,
        "run.name": "small",
        "train.max_steps": 2,
        "scaling.num_workers": 1,
        "scaling.worker_resources": '{"trainer": 1}',
    }
    argv = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    submit = [sys.executable, "-m", "job.submit", "--address", cluster.dashboard, "--"]
    done = cluster.run([*submit, "job.train", "--config", DEMO, *argv], timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [line["step"] for line in metrics(tmp_path / "small")] == [1, 2]

    going = cluster.nodes[-1]
    watch = [sys.executable, "-m", "job.spot", "--cloud", "none", "--node-ip", going.address]
    log = tmp_path / "spot.log"
    watcher = cluster.start_on(going, watch, log)
    while "watches SIGTERM" not in log.read_text():
        assert watcher.poll() is None, log.read_text()
        time.sleep(0.1)
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(60) == 0, log.read_text()
    assert "is drained" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whoever_has_no_certificate_is_told_in_a_line(cluster):
    plain = {key: value for key, value in cluster.command_env().items() if "_TLS" not in key}
    done = subprocess.run(
        [*cluster.head.prefix, sys.executable, "-m", "job.train", "--config", DEMO],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = done.stderr.splitlines()
    assert "the cluster there has encrypted channels: set RAY_USE_TLS" in line
