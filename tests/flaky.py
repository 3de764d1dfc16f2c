"""An S3 server that fails on purpose."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tools.s3_server import s3_server

BODY = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>busy</Message></Error>"


@dataclass
class Flaky:
    """A WSGI application in front of another one, that answers 503 to a share of the requests.

    Attributes:
        app: the application behind it.
        share: share of requests that fail, among those that may.
        may_fail: tells whether a request may fail, given as it stands in `requests`.
        chance: draws the requests that fail.
        seen: called with each request before it is answered.
        lock: held while a request is noted, as requests come in threads.
        requests: method and path of all requests.
        failed: number of requests that were answered 503.
    """

    app: Callable
    share: float = 0.0
    may_fail: Callable[[str], bool] = lambda request: True
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    seen: Callable[[str], None] = lambda request: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: list[str] = field(default_factory=list)
    failed: int = 0

    def __call__(self, environ: dict, start_response: Callable) -> object:
        with self.lock:
            self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            fails = self.may_fail(self.requests[-1]) and self.chance.random() < self.share
            self.failed += fails
            self.seen(self.requests[-1])
        if not fails:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else BODY
        start_response("503 Service Unavailable", [("Content-Length", str(len(body)))])
        return [body]


@contextlib.contextmanager
def flaky_bucket() -> Iterator[tuple[Flaky, dict[str, str]]]:
    """Yield an empty `s3://bucket`, and the environment that leads to it.

    This process has that environment meanwhile.
    """
    with s3_server("bucket", Flaky) as found:
        yield found
