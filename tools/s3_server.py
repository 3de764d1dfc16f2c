"""An S3 server of this process's own, for tests and benchmarks."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import fsspec
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Application = Callable[[dict, Callable], Any]


class _Silent(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def s3_server(
    bucket: str, front: Callable[[Application], Application] = lambda app: app
) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield what answers the requests, and the environment that leads to it.

    This process has that environment meanwhile, and the processes that it starts inherit it.

    Args:
        bucket: name of its bucket, which is empty.
        front: puts a WSGI application in front of the server's.
    """
    app = front(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "made-up",
        "AWS_SECRET_ACCESS_KEY": "made-up",
    }
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)

    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()  # one made before knows another server
    try:
        # what this process's servers hold is theirs together
        reset = Request(f"{env['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")
        urlopen(reset).close()
        fsspec.filesystem("s3").mkdir(bucket)
        yield app, env
    finally:
        s3.clear_instance_cache()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.shutdown()
        thread.join()
        server.server_close()
