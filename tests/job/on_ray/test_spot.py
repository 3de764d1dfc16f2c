"""Notices of the clouds' metadata services, as documented, from a server on loopback."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray
from ray.exceptions import AuthenticationError

from job import spot
from job.spot import Metadata


class Service(BaseHTTPRequestHandler):
    """Answers of one cloud; `notice` is what it announces."""

    cloud = ""
    notice: str | None = None

    def do_PUT(self) -> None:
        asked = (
            self.path == "/latest/api/token"
            and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        )
        self.answer("token" if self.cloud == "aws" and asked else None)

    def do_GET(self) -> None:
        cloud, headers = self.cloud, self.headers
        if cloud == "aws" and self.path == "/latest/meta-data/spot/instance-action":
            self.answer(
                self.notice if headers["X-aws-ec2-metadata-token"] == "token" else None, missing=404
            )
        elif cloud == "gcp" and self.path == "/computeMetadata/v1/instance/preempted":
            self.answer(self.notice or "FALSE" if headers["Metadata-Flavor"] == "Google" else None)
        elif cloud == "azure" and self.path.startswith("/metadata/scheduledevents?api-version="):
            self.answer(self.notice or '{"Events": []}' if headers["Metadata"] == "true" else None)
        else:
            self.answer(None)

    def answer(self, text: str | None, missing: int = 400) -> None:
        self.send_response(missing if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Metadata(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


SOON = datetime.now(UTC) + timedelta(seconds=300)
NOTICES = {
    "aws": json.dumps({"action": "terminate", "time": SOON.strftime("%Y-%m-%dT%H:%M:%SZ")}),
    "gcp": "TRUE",
    "azure": json.dumps(
        {"Events": [{"EventType": "Preempt", "NotBefore": format_datetime(SOON, usegmt=True)}]}
    ),
}


@pytest.mark.parametrize("cloud", NOTICES)
def test_a_notice_is_found_and_the_time_that_is_left(metadata, monkeypatch, cloud):
    monkeypatch.setattr(Service, "cloud", cloud)
    assert metadata.find_cloud() == cloud
    assert metadata.seconds_left(cloud) is None
    monkeypatch.setattr(Service, "notice", NOTICES[cloud])
    left = metadata.seconds_left(cloud)
    assert left == 30 if cloud == "gcp" else 1 <= left <= 300


def test_a_reboot_is_no_notice(metadata, monkeypatch):
    monkeypatch.setattr(Service, "cloud", "azure")
    monkeypatch.setattr(
        Service, "notice", json.dumps({"Events": [{"EventType": "Reboot", "NotBefore": ""}]})
    )
    assert metadata.seconds_left("azure") is None


def test_a_notice_that_is_late_leaves_a_second(metadata, monkeypatch):
    monkeypatch.setattr(Service, "cloud", "aws")
    monkeypatch.setattr(
        Service, "notice", json.dumps({"action": "stop", "time": "2020-01-01T00:00:00Z"})
    )
    assert metadata.seconds_left("aws") == 1


def test_a_cluster_that_does_not_know_us_is_told_in_a_line(monkeypatch, capsys):
    def refuses(*_: object, **__: object) -> None:
        raise AuthenticationError("Unauthorized:\nMissing authentication token")

    monkeypatch.setattr(ray, "init", refuses)
    assert spot.main(["--cloud", "none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the cluster asks for its token: set RAY_AUTH_MODE=token")


def test_no_cloud(metadata):
    assert metadata.find_cloud() is None
