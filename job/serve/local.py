"""The page's server in this process."""

import contextlib
import socket

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from job.serve.voices import Voices
from job.serve.web import LocalSpeech, web_app

LOOPBACK = ("127.0.0.1", "localhost")


def server_of(voices: Voices, host: str) -> uvicorn.Server:
    """Return the server.

    Args:
        voices: what speaks.
        host: address that it listens on.
    """
    app = web_app(LocalSpeech(voices))
    if host in LOOPBACK:
        # a name of somebody else's that leads here: a page of theirs could read the answers
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))


def serve_on(bound: socket.socket, voices: Voices) -> None:
    """Serve until Ctrl-C, which is how it ends."""
    with contextlib.suppress(KeyboardInterrupt):
        server_of(voices, bound.getsockname()[0]).run(sockets=[bound])
