"""Turn a cloud's notice into a drain: `python -m job.spot`, beside `ray start` on each node.

A spot or preemptible machine learns from its metadata service that it will be taken away: AWS two
minutes before (instance-action, IMDSv2), GCP thirty seconds (instance/preempted), Azure thirty
(scheduled events). Ray does not ask there, nor does `ray start --block` turn SIGTERM into a drain.
This watcher does both: it calls `ray drain-node` with the time that is left, Ray Train tells the
workers, and they save themselves (trainable/worker/preemption.py). `--now` drains at once and
waits until nothing is left on the node, for a Kubernetes preStop hook.

This file imports nothing of the project: the cluster files (cluster.yaml, deploy/) copy it alone to
the nodes, where the project comes only with a job.
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError

METADATA = "http://169.254.169.254"  # link-local, the same on all three clouds
CLOUDS = ("aws", "gcp", "azure")
NOTICE_S = 30  # of GCP and Azure; AWS tells the time itself
ANSWER_WITHIN_S = 2
LOOK_EVERY_S = 1
LONGEST_S = 86400.0


class Metadata:
    """The metadata service of the machine that this process runs on.

    Args:
        address: address of the service.
    """

    def __init__(self, address: str = METADATA) -> None:
        self.address = address

    def seconds_left(self, cloud: str) -> float | None:
        """Return the seconds until the machine goes; None if nothing is announced.

        Args:
            cloud: one of CLOUDS.

        Raises:
            OSError: the service does not answer.
        """
        return {"aws": self._aws, "gcp": self._gcp, "azure": self._azure}[cloud]()

    def find_cloud(self) -> str | None:
        """Return the cloud whose service answers here; None without one."""
        for cloud in CLOUDS:
            try:
                self.seconds_left(cloud)
            except (OSError, ValueError):
                continue  # another cloud's, or none
            return cloud
        return None

    def _aws(self) -> float | None:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = self._ask("/latest/api/token", lifetime, "PUT")
        try:
            notice = self._ask(
                "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}
            )
        except HTTPError as error:
            # AWS answers so as long as there is no notice
            if error.code == 404:
                return None
            raise
        return _until(datetime.fromisoformat(json.loads(notice)["time"]))

    def _gcp(self) -> float | None:
        answer = self._ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
        return NOTICE_S if answer.strip() == "TRUE" else None

    def _azure(self) -> float | None:
        answer = self._ask("/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
        times = [
            _until(parsedate_to_datetime(event["NotBefore"]))
            if event.get("NotBefore")
            else NOTICE_S
            for event in json.loads(answer)["Events"]
            if event["EventType"] in ("Preempt", "Terminate")
        ]
        return min(times, default=None)

    def _ask(self, path: str, headers: dict[str, str], method: str = "GET") -> str:
        request = urllib.request.Request(self.address + path, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
            return answer.read().decode()


def _until(when: datetime) -> float:
    """Return the seconds until a time, at least one; a time without a zone is UTC."""
    zoned = when.replace(tzinfo=when.tzinfo or UTC)
    return max(1.0, (zoned - datetime.now(UTC)).total_seconds())


def this_node(address: str, node_ip: str | None) -> tuple[str, str]:
    """Return the address of the cluster's control store, and Ray's id of this node.

    Args:
        address: address of the cluster.
        node_ip: address of this node, if several raylets share the machine.

    Raises:
        PermissionError: the cluster asks for its token; says how to give it.
    """
    import ray  # takes a second, which --help has no use for

    # a private argument of Ray; here, as this file cannot import job.on_ray.private
    own: dict[str, Any] = {} if node_ip is None else {"_node_ip_address": node_ip}
    try:
        ray.init(address, log_to_driver=False, configure_logging=False, **own)
    except ray.exceptions.AuthenticationError as error:
        reason = " ".join(str(error).split())
        raise PermissionError(
            f"the cluster asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to "
            f"a file with it (Ray says: {reason})"
        ) from error
    context = ray.get_runtime_context()
    found = (context.gcs_address, context.get_node_id())
    ray.shutdown()
    return found


def drain(address: str, node: str, why: str, seconds: float) -> None:
    """Tell Ray that a node goes.

    Args:
        address: address of the cluster's control store.
        node: Ray's id of the node.
        why: reason, for Ray's logs.
        seconds: time that is left.

    Raises:
        OSError: Ray refuses it; with its message.
    """
    options = {
        "--address": address,
        "--node-id": node,
        "--reason": "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message": why,
        "--deadline-remaining-seconds": str(max(1, int(seconds))),
    }
    command = [str(Path(sys.executable).parent / "ray"), "drain-node"]
    command += [word for option in options.items() for word in option]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise OSError(f"ray drain-node failed: {done.stdout}{done.stderr}")
    print(f"{why}: node {node} is drained, {seconds:.0f} s are left", flush=True)


def wait_while_alive(address: str, node: str, seconds: float) -> None:
    """Wait until a drained node has ended, which it does when nothing runs there any more.

    Args:
        address: address of the cluster's control store.
        node: Ray's id of the node.
        seconds: the longest wait.
    """
    try:
        # private names of Ray, which ask without being a driver: that would be work on the node
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
    except ImportError as error:
        print(f"Ray {version('ray')} does not tell when a node ends: waits ({error})", flush=True)
        time.sleep(seconds)
        return
    store = GcsClient(address=address)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        nodes = store.get_all_node_info(timeout=ANSWER_WITHIN_S).values()
        alive = {each.node_id.hex() for each in nodes if each.state == GcsNodeInfo.ALIVE}
        if node not in alive:
            print(f"node {node} has ended", flush=True)
            return


def wait_for_notice(
    metadata: Metadata, cloud: str | None, every_s: float, term_grace_s: float
) -> tuple[str, float]:
    """Wait for a notice or SIGTERM; return what it was, and the seconds that are left.

    Args:
        metadata: the metadata service.
        cloud: one of CLOUDS; None: wait for SIGTERM alone.
        every_s: seconds between two questions.
        term_grace_s: seconds that are left after SIGTERM.
    """
    # SIGTERM is the only notice on machines without a metadata service, and in pods
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    while not terminated.wait(every_s):
        try:
            left = metadata.seconds_left(cloud) if cloud else None
        except (OSError, ValueError) as error:
            print(
                f"the metadata service does not answer, asked again in {every_s} s: {error}",
                flush=True,
            )
            continue
        if left is not None:
            return f"{cloud} takes this machine away", left
    return "SIGTERM", term_grace_s


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(argv)
    metadata = Metadata(args.metadata)
    named = {"auto": metadata.find_cloud, "none": lambda: None}
    cloud = named.get(args.cloud, lambda: args.cloud)()
    try:
        address, node = this_node(args.address, args.node_ip)
    except PermissionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    notices = f" and {cloud}'s notices" if cloud else ", no cloud"
    print(f"node {node}: watches SIGTERM{notices}", flush=True)

    if args.now:
        drain(address, node, "asked for", args.term_grace_s)
        wait_while_alive(address, node, args.term_grace_s)
    else:
        why, left = wait_for_notice(metadata, cloud, args.every_s, args.term_grace_s)
        drain(address, node, why, left)
    return 0


class Arguments(argparse.ArgumentParser):
    """A parser whose options are written out, and that tells a mistake in one line."""

    def __init__(self) -> None:
        # or `python -m job spot`
        called = sys.argv[0] if sys.argv[0].startswith("python -m ") else "python -m job.spot"
        super().__init__(called, description=__doc__, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """End the command."""
        print(f"error: {message} (--help shows all options)", file=sys.stderr)
        sys.exit(2)


def seconds(text: str) -> float:
    """Return a number of seconds."""
    if not 0 < (found := float(text)) <= LONGEST_S:
        raise ValueError
    return found


def web_address(text: str) -> str:
    """Return the address of a metadata service."""
    if not text.startswith(("http://", "https://")):
        raise ValueError
    return text


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = Arguments()
    made.add_argument("--address", default="auto", help="address of the Ray cluster")
    made.add_argument(
        "--node-ip", help="address of this node, if several raylets share the machine"
    )
    made.add_argument(
        "--cloud",
        choices=["auto", *CLOUDS, "none"],
        default="auto",
        help="whose notices are looked for; auto asks which service answers",
    )
    made.add_argument(
        "--metadata", type=web_address, default=METADATA, help="address of the metadata service"
    )
    made.add_argument("--every-s", type=seconds, default=2.0, help="seconds between two questions")
    made.add_argument(
        "--term-grace-s", type=seconds, default=30.0, help="seconds left after SIGTERM or --now"
    )
    made.add_argument(
        "--now", action="store_true", help="drain at once, and wait until the node is idle"
    )
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
