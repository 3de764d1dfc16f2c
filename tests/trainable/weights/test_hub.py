"""A base model from a hub: a small server speaks the hub's protocol on loopback."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from trainable.weights.warm_start import warm_start

COMMIT = "c" * 40


@dataclass
class Hub:
    """What the server holds, and how it misbehaves.

    Attributes:
        files: name -> content of the model someone/voice.
        token: that a reader must send.
        cut: bytes after which the first download breaks off.
        spoil: downloads whose bytes are changed on their way.
        requests: (method, file, Range) of each download.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    token: str | None = None
    cut: int | None = None
    spoil: int = 0
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, hub: Hub):
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        elif path in ("/api/models/someone/voice", "/api/models/someone/voice/revision/v2"):
            siblings = [
                {
                    "rfilename": name,
                    "size": len(content),
                    "blobId": "0" * 40,
                    "lfs": {
                        "size": len(content),
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "pointerSize": 1,
                    },
                }
                for name, content in hub.files.items()
            ]
            self.reply(
                200,
                json.dumps({"id": "someone/voice", "sha": COMMIT, "siblings": siblings}).encode(),
                {},
                body,
            )
        elif path.startswith(f"/someone/voice/resolve/{COMMIT}/"):
            self.file(path.rpartition("/")[2], body)
        else:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def file(self, name: str, body: bool) -> None:
        hub, content = self.hub, self.hub.files[name]
        asked = self.headers.get("Range")
        hub.requests.append((self.command, name, asked))
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": etag,
            "X-Linked-ETag": etag,
            "X-Linked-Size": str(len(content)),
        }
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if body and hub.spoil:
            hub.spoil -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        self.reply(206 if start else 200, content[start:], headers, body)

    def reply(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.hub.cut and "X-Repo-Commit" in headers:
            self.wfile.write(content[: self.hub.cut])
            self.hub.cut, self.close_connection = None, True
        elif body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    made = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub=made))
    made.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def net(hub, tmp_path):
    """A network that the hub publishes, beside files that are of no use here."""
    made = nn.Linear(300, 300)
    path = tmp_path / "G_7.pth"
    torch.save({"model": made.state_dict()}, path)
    hub.files |= {"G_7.pth": path.read_bytes(), "G_1.pth": b"older", "README.md": b"a voice"}
    return made


def downloads(hub: Hub) -> list[tuple[str, str | None]]:
    return [(name, asked) for method, name, asked in hub.requests if method == "GET"]


def load(hub: Hub, name: str = "someone/voice") -> nn.Module:
    mine = nn.Linear(300, 300)
    warm_start(name, {"g": mine}, endpoint=hub.address)
    return mine


@pytest.mark.parametrize("name", ["someone/voice", "someone/voice@v2"])
def test_the_newest_files_are_fetched_once_and_it_is_told(hub, net, name, capfd):
    for _ in range(2):
        assert torch.equal(load(hub, name).weight, net.weight)
    size = f"{len(hub.files['G_7.pth']) / 1e6:,.1f} MB"
    here = f"{name} is here, at revision {COMMIT}"
    # of no terminal; the second time there is nothing to wait for
    told = [line for line in capfd.readouterr().err.splitlines() if name in line]
    assert told == [f"downloads G_7.pth of {name}, {size}", here, here]
    assert downloads(hub) == [("G_7.pth", None)]


def test_a_broken_download_goes_on_where_it_broke_off(hub, net, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cut = 120_000
    assert torch.equal(load(hub).weight, net.weight)
    # whole chunks are kept
    assert downloads(hub) == [("G_7.pth", None), ("G_7.pth", "bytes=100000-")]


def test_a_file_with_another_hash_is_fetched_again(hub, net):
    hub.spoil = 1
    assert torch.equal(load(hub).weight, net.weight)
    assert len(downloads(hub)) == 2


def test_a_file_that_keeps_another_hash_is_refused(hub, net):
    hub.spoil = 2
    with pytest.raises(
        ValueError, match=r"G_7.pth of someone/voice differs from the hash that http.* states"
    ):
        load(hub)


def test_the_token_comes_from_the_environment(hub, net, monkeypatch):
    hub.token = "hf_secret"
    with pytest.raises(ValueError, match=r"no model \(or revision\) .* set HF_TOKEN"):
        load(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert torch.equal(load(hub).weight, net.weight)


def test_no_such_model(hub, net):
    with pytest.raises(
        ValueError, match=r"train.init_from someone/else: .* is no folder here, and no model"
    ):
        load(hub, "someone/else")


def test_a_model_without_published_weights(hub):
    hub.files["model.bin"] = b"x"
    with pytest.raises(ValueError, match=r"has no file that is wanted, only model.bin"):
        load(hub)


def test_a_folder_here_is_no_name_of_the_hub(hub, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("someone/voice").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds neither published weights"):
        load(hub)
    assert not hub.requests
