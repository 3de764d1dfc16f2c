"""Token authentication: local runs leave nothing of it, clusters that ask get the token."""

import datetime
import ipaddress
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ray.exceptions import AuthenticationError

from job import submit
from job.settings.cli import run
from tests.job.conftest import ROOT
from tests.job.test_elastic import OPTIONS
from tools.cluster_run import DEMO, ClusterRun
from tools.local_cluster import LocalCluster

LOCAL = """
import ray
from job.on_ray.cluster import ray_session
from tests.tiny import demo_config
with ray_session(demo_config()):
    print("computed", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""
TOKEN = "0123456789abcdef" * 4
NETS = ("127.0.0", "10.213.0")  # of a LocalCluster
ASKS = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10))
"""


@pytest.mark.cluster
def test_a_local_run_leaves_no_token(environment, tmp_path):
    env = {key: value for key, value in environment.items() if not key.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL],
        cwd=ROOT,
        env=env | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "computed 42" in done.stdout, done.stderr[-3000:]
    assert not (tmp_path / ".ray/auth_token").exists()
    assert "Token authentication" not in done.stderr


def test_a_cluster_that_does_not_know_us_is_told_in_a_line(monkeypatch, capsys):
    def refuses(address):
        raise AuthenticationError("Unauthorized:\nMissing authentication token")

    monkeypatch.setattr(submit, "JobSubmissionClient", refuses)
    monkeypatch.setattr(sys, "argv", ["job.submit", "--address", "http://head", "--", "job.train"])
    with pytest.raises(SystemExit) as ended:
        run(submit.main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the cluster at http://head asks for its token: set RAY_AUTH_MODE=token" in line
    assert "Missing authentication token" in line


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster that asks for TOKEN: a head and a worker node."""
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with LocalCluster(workers=1, dashboard=True, env=env) as started:
        yield started


def submitted(cluster: LocalCluster, home: Path, **env: str) -> subprocess.CompletedProcess:
    """Have the cluster print the help of job.runs, from a home that has no token."""
    home.mkdir(exist_ok=True)
    own = {k: v for k, v in cluster.env.items() if not k.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "job.submit", "--address", cluster.dashboard]
    return subprocess.run(
        [*cluster.head.prefix, *command, "--", "job.runs", "--help"],
        cwd=ROOT,
        env=own | {"HOME": str(home)} | env,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_asks_for_its_token_serves_those_who_have_it(cluster, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    for refused in (
        submitted(cluster, tmp_path / "none"),
        submitted(cluster, tmp_path / "none", RAY_AUTH_MODE="token"),
        submitted(cluster, tmp_path / "other", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64),
    ):
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert "asks for its token: set RAY_AUTH_MODE=token" in refused.stderr
        assert "Traceback" not in refused.stderr
    done = submitted(
        cluster, tmp_path / "home", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(file)
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    assert "usage: python -m job.runs" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_and_the_watcher_of_notices_have_the_token_too(cluster, shards, tmp_path):
    options = OPTIONS | {
        "data.shards": shards,
        "run.storage": tmp_path,
        "run.name": "small",
        "train.max_steps": 1,
        "eval.every_steps": 1,
        "scaling.num_workers": 1,
        "scaling.worker_resources": '{"trainer": 1}',
    }
    argv = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    argv += ["--space", "loss_weights", "--metric", "eval/mel", "--schedule", "none"]
    command = [sys.executable, "-m", "tuning.sweep", "--config", DEMO, *argv]
    swept = cluster.run([*command, "--trials", "1", "--at-once", "1"], timeout=280)
    assert swept.returncode == 0, swept.stdout[-2000:] + swept.stderr[-2000:]
    assert (tmp_path / "small-sweep/best.yaml").exists()
    assert TOKEN not in swept.stdout + swept.stderr

    going = cluster.nodes[-1]
    watch = [sys.executable, "-m", "job.spot", "--cloud", "none", "--node-ip", going.address]
    refused = subprocess.run(
        [*going.prefix, "env", "-u", "RAY_AUTH_TOKEN", f"HOME={tmp_path}", *watch],
        env=cluster.command_env(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert refused.stderr.splitlines()[-1].startswith("error: the cluster asks for its token")
    assert "Traceback" not in refused.stderr

    log = tmp_path / "spot.log"
    watcher = cluster.start_on(going, watch, log)
    while "watches SIGTERM" not in log.read_text():
        assert watcher.poll() is None, log.read_text()
        time.sleep(0.1)
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(60) == 0, log.read_text()
    assert "is drained" in log.read_text()
    assert TOKEN not in log.read_text()


def certificates(folder: Path, hosts: list[str]) -> dict[str, str]:
    """Make an authority and a certificate of it for some addresses; what Ray is to be told."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("CA", "node")}
    for name, key in keys.items():
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (name, "CA")
        )
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(h)) for h in hosts)]
        )
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(name == "CA", None), critical=True)
            .sign(keys["CA"], hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "node.key").write_bytes(
        keys["node"].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "CA.crt"),
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_encrypts_trains(shards, tmp_path):
    hosts = ["127.0.0.1", *(f"{net}.{host}" for net in NETS for host in range(2, 6))]
    with LocalCluster(workers=2, env=certificates(tmp_path, hosts)) as cluster:
        options = OPTIONS | {"data.shards": shards, "train.max_steps": 2}
        options |= {"scaling.num_workers": 2}
        with ClusterRun(cluster, tmp_path, "run", options) as run:
            run.finish()
        unencrypted = ["env", "-u", "RAY_USE_TLS", sys.executable, "-c", ASKS, cluster.address]
        plain = cluster.run(unencrypted, timeout=200)
    assert [line["step"] for line in run.losses()] == [1, 2]
    assert plain.returncode != 0
