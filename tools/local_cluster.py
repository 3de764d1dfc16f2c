"""A Ray cluster of several raylets on this machine, whose nodes can be killed, drained and added.

If the machine allows it (root and `ip`), every node has a network namespace with an address of its
own on a private bridge, so that a node's death takes its network with it. Otherwise nodes have
loopback addresses of their own.
"""

import ipaddress
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")
NODE_MARK = "BERT_VITS2_RAY_NODE"
PORT = 6379  # of the GCS, in the head's own namespace or on its own address
DASHBOARD_PORT = 8265  # likewise
FIRST_HOST = 2
HEAD_TYPE = "ray.head.default"
HEAD_ID = "f" * 51 + "00000"  # fixed in Ray's FakeMultiNodeProvider
IDLE_TIMEOUT_S = 30
ATTEMPTS = 3
AUTOSCALER = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "RAY_NODE_TYPE_NAME": HEAD_TYPE,
}
# the nodes share a folder of logs, which the head's monitor reads
LOGS = "--include-log-monitor=false"
# A node counts as dead some 3 s after its last answer; a real cluster sets the same before `ray
# start --head`.
FAST_HEALTH_CHECK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Node:
    """A raylet and its processes.

    Attributes:
        address: address of the node.
        name: mark of the node, NODE_MARK in the environment of all its processes.
        prefix: command that enters its namespace; empty without one.
        link: its end of the bridge; None without a namespace.
        process: `ray start --block`.
    """

    address: str
    name: str
    prefix: list[str]
    link: str | None
    process: subprocess.Popen


class LocalCluster:
    """A head with CPUs for the driver and the loaders, and worker nodes of one `trainer` each.

    Use it as a context manager; everything it started is ended with it.
    """

    def __init__(
        self,
        workers: int,
        head_cpus: int = 3,
        env: dict[str, str] | None = None,
        dashboard: bool = False,
        node_types: dict[str, dict] | None = None,
    ):
        """Start a head and `workers` nodes.

        Args:
            workers: nodes with one CPU and one `trainer`.
            head_cpus: logical CPUs of the head.
            env: further environment variables of all nodes and commands.
            dashboard: whether there is a dashboard, through which jobs are submitted; the attribute
                `dashboard` is its address, for commands on the head.
            node_types: `available_node_types` of a cluster.yaml, whose nodes Ray's autoscaler
                starts as raylets beside the head, under its address, and ends when they are idle;
                None: no autoscaler.
        """
        # Ray's sockets need short paths
        self.folder = Path(tempfile.mkdtemp(prefix="bvr-", dir="/tmp"))
        self.tag = f"bvr{os.getpid() % 10000}x{next(_numbers)}"
        self.network = _network() if _can_make_namespaces() else None
        self.env = _environment(env or {})
        self.hosts = itertools.count(FIRST_HOST)
        self.nodes: list[Node] = []
        self.port = PORT if self.network else free_port()
        dashboard_port = DASHBOARD_PORT if self.network else free_port()
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        try:
            if self.network:
                _ip("link", "add", self.tag, "type", "bridge")
                _ip("link", "set", self.tag, "up")
            self.head_arguments = [
                "--head",
                f"--port={self.port}",
                f"--num-cpus={head_cpus}",
                f"--temp-dir={self.folder}",
                f"--include-dashboard={str(dashboard).lower()}",
                f"--dashboard-port={dashboard_port}",
            ]
            if node_types:
                self.head_arguments.append(self._autoscale(node_types))
            self.head = self._start(self.head_arguments)
            self.address = f"{self.head.address}:{self.port}"
            self._wait_for(self.head)
            for _ in range(workers):
                self.add_node()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_node(self) -> Node:
        """Start another worker node and wait until it has joined.

        On a busy machine `ray start` may give up asking the head: it is then tried again.
        """
        resources = ["--num-cpus=1", '--resources={"trainer": 1}']
        for attempt in range(1, ATTEMPTS + 1):
            node = self._start([f"--address={self.address}", *resources, LOGS])
            try:
                self._wait_for(node)
                break
            except RuntimeError:
                _kill_marked(node.name)
                if attempt == ATTEMPTS:
                    raise
        self.nodes.append(node)
        return node

    def kill_node(self, node: Node) -> None:
        """Cut a node's power: first its network if it has one, then all processes by SIGKILL."""
        if node.link:
            _ip("link", "set", node.link, "down")
        _kill_marked(node.name)
        self.nodes.remove(node)

    def kill_head(self) -> None:
        """SIGKILL all processes of the head; the other nodes wait for it a minute."""
        _kill_marked(self.head.name)

    def start_head_again(self) -> None:
        """Start the head that was killed, under its address and without what it knew."""
        head = self.head
        head.process = self._launch(head.address, head.name, head.prefix, self.head_arguments)
        self._wait_for(head)

    def drain_node(self, node: Node, deadline_s: float) -> None:
        """Announce that the node goes in `deadline_s` seconds, as a spot watcher does."""
        arguments = ["--address", self.address, "--node-id", self.node_id(node)]
        arguments += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        arguments += ["--deadline-remaining-seconds", str(int(deadline_s))]
        done = self.run([RAY, "drain-node", *arguments])
        if done.returncode:
            raise RuntimeError(f"ray drain-node failed:\n{done.stdout}{done.stderr}")

    def node_id(self, node: Node) -> str:
        """Return Ray's id of a node."""
        return next(n["NodeID"] for n in self.alive() if n["NodeManagerAddress"] == node.address)

    def alive(self) -> list[dict]:
        """Return the nodes that are alive, as `ray.nodes()` gives them."""
        script = (
            "import ray, json; "
            f"ray.init('{self.address}', log_to_driver=False); "
            "print(json.dumps(ray.nodes()))"
        )
        done = self.run([sys.executable, "-c", script])
        if done.returncode:
            raise RuntimeError(f"the cluster does not answer:\n{done.stdout}{done.stderr}")
        return [node for node in json.loads(done.stdout.splitlines()[-1]) if node["Alive"]]

    def run(self, argv: list[str], timeout: float = 60) -> subprocess.CompletedProcess:
        """Run a command on the head and wait for its end."""
        return subprocess.run(
            [*self.head.prefix, *argv],
            env=self.command_env(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )

    def start(self, argv: list[str], log: Path) -> subprocess.Popen:
        """Start a command on the head, such as a driver; its output goes to `log`."""
        with log.open("ab") as out:
            return subprocess.Popen(
                [*self.head.prefix, *argv], env=self.command_env(), stdout=out, stderr=out
            )

    def start_on(self, node: Node, argv: list[str], log: Path) -> subprocess.Popen:
        """Start a command on a node; it ends with the node."""
        env = self.command_env() | {NODE_MARK: node.name}
        with log.open("ab") as out:
            return subprocess.Popen([*node.prefix, *argv], env=env, stdout=out, stderr=out)

    def command_env(self) -> dict[str, str]:
        """Return the environment of commands that use the cluster."""
        return self.env | {"RAY_ADDRESS": self.address}

    def close(self) -> None:
        """End all nodes and take down the network."""
        _kill_marked(self.tag)
        if self.network:
            for host in range(1, next(self.hosts)):
                _try_ip("link", "del", f"{self.tag}v{host}")
                _try_ip("netns", "del", f"{self.tag}n{host}")
            _try_ip("link", "del", self.tag)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _autoscale(self, node_types: dict[str, dict]) -> str:
        """Prepare an autoscaler; return the argument of `ray start` that starts it."""
        self.env |= AUTOSCALER
        gcs_address = f"{self._address_of(FIRST_HOST)}:{self.port}"
        config = self.folder / "autoscaling.json"
        config.write_text(json.dumps(_autoscaling(node_types, gcs_address)), encoding="utf-8")
        return f"--autoscaling-config={config}"

    def _start(self, arguments: list[str]) -> Node:
        """Start a node by `ray start` with these arguments."""
        address, name, prefix, link = self._host()
        process = self._launch(address, name, prefix, arguments)
        return Node(address, name, prefix, link, process)

    def _launch(
        self, address: str, name: str, prefix: list[str], arguments: list[str]
    ) -> subprocess.Popen:
        """Call `ray start` on a host."""
        # in a namespace the workers find theirs; no interface has a node's own loopback address
        interface = {} if prefix else {"GLOO_SOCKET_IFNAME": "lo", "TP_SOCKET_IFNAME": "lo"}
        argv = [*prefix, RAY, "start", "--block", f"--node-ip-address={address}", *arguments]
        argv += ["--object-store-memory=200000000", "--disable-usage-stats"]
        argv.append("--dashboard-agent-listen-port=0")
        env = self.env | interface | {NODE_MARK: name}
        with (self.folder / f"{address}.log").open("wb") as log:
            return subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)

    def _host(self) -> tuple[str, str, list[str], str | None]:
        """Make a host; return address, name, command that enters its namespace, and link."""
        number = next(self.hosts)
        address = self._address_of(number)
        if not self.network:
            return address, f"{self.tag}n{number}", [], None

        space = f"{self.tag}n{number}"
        link = f"{self.tag}v{number}"
        _ip("netns", "add", space)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", self.tag, "up")
        _ip("-n", space, "addr", "add", f"{address}/{self.network.prefixlen}", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        # it leads nowhere, but from it Ray learns which address its machine has
        _ip("-n", space, "route", "add", "default", "dev", "eth0")
        return address, space, ["ip", "netns", "exec", space], link

    def _address_of(self, number: int) -> str:
        return str(self.network[number]) if self.network else f"127.0.0.{number}"

    def _wait_for(self, node: Node, timeout: float = 90) -> None:
        """Wait until a node runs."""
        log = self.folder / f"{node.address}.log"
        deadline = time.monotonic() + timeout
        while "Ray runtime started" not in log.read_text(encoding="utf-8"):
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"node {node.address} did not start:\n{log.read_text(encoding='utf-8')[-2000:]}"
                )
            time.sleep(0.1)


def _autoscaling(node_types: dict[str, dict], gcs_address: str) -> dict:
    """Return what `ray start --autoscaling-config` reads; all that only a cloud needs is empty.

    Args:
        node_types: `available_node_types` of a cluster.yaml.
        gcs_address: address of the cluster's control store.
    """
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": gcs_address,
        "head_node_id": HEAD_ID,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
    }
    commands = (
        "initialization",
        "setup",
        "head_setup",
        "worker_setup",
        "head_start_ray",
        "worker_start_ray",
    )
    return {
        "cluster_name": "local",
        "provider": provider,
        "max_workers": sum(of["max_workers"] for of in node_types.values()),
        "available_node_types": node_types
        | {HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}},
        "head_node_type": HEAD_TYPE,
        "idle_timeout_minutes": IDLE_TIMEOUT_S / 60,
        "upscaling_speed": 1.0,
        **{f"{name}_commands": [] for name in commands},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }


def _kill_marked(name: str) -> None:
    """SIGKILL every process of a node, or of all nodes whose names begin with `name`.

    They are found by their environment, as Ray's processes have sessions of their own and outlive
    their parents.
    """
    # several times, as a process may have been starting another one
    for _ in range(3):
        for process in psutil.process_iter():
            try:
                if process.environ().get(NODE_MARK, "").startswith(name):
                    process.kill()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended by itself, or belongs to another user


def _environment(further: dict[str, str]) -> dict[str, str]:
    """Return the environment of all nodes and commands."""
    env = os.environ | FAST_HEALTH_CHECK
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | further
    # a job's `python` is this one
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env.pop("RAY_ADDRESS", None)
    return env


def _can_make_namespaces() -> bool:
    """Return whether this process may make network namespaces and bridges."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"bvrtry{os.getpid()}"
    link = name[:15]
    space = _try_ip("netns", "add", name)
    bridge = _try_ip("link", "add", link, "type", "bridge")
    _try_ip("netns", "del", name)
    _try_ip("link", "del", link)
    return space and bridge


def _network() -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network("10.213.0.0/24")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _try_ip(*arguments: str) -> bool:
    """Run `ip`; return whether it succeeded."""
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_numbers = itertools.count()
