"""Type a text and hear it in a browser: `python -m job.listen RUN`.

The page speaks with the newest or the best checkpoint of the run, also while it trains, and plays
the sentences of its validations. It is served on this machine alone. docs/listening.md has the
details, and how a cluster serves it.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.listen")

import argparse
import importlib.util
import socket
from collections.abc import Sequence

from job.options.listen import command_line
from job.settings.cli import run
from job.voice.device import device_of

NEEDED = ("starlette", "uvicorn")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    check(args)
    with listening(args.host, args.port) as bound:
        from job.serve.local import serve_on
        from job.serve.voices import Voices

        voices = Voices(args.checkpoint, args.device, args.weights, args.reference)
        address = f"http://{args.host}:{bound.getsockname()[1]}/"
        print(f"{address} speaks with {args.checkpoint}; Ctrl-C ends it", flush=True)
        serve_on(bound, voices)
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse options that make no sense, and a machine that lacks the packages.

    Raises:
        ValueError: names the option, or says what to install.
    """
    if not 0 <= args.port < 2**16:
        raise ValueError(f"--port is {args.port}: give 0 (any that is free) to 65535")
    args.device = device_of(args.device)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} is not installed: python -m pip install '.[listen]'"
        )


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: the port is taken, or the machine has no such address; names the option.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: {error.strerror or error}: give another port, or 0"
        ) from error


if __name__ == "__main__":
    run(main)
