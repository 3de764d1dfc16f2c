"""Type a text and hear it in a browser: `python -m job.listen RUN`.

The page speaks with the newest or the best checkpoint of the run, also while it trains, and plays
the sentences of its validations. It is served on this machine alone. docs/listening.md has the
details, and how a cluster serves it.
"""

import argparse
import importlib.util
import socket
from collections.abc import Sequence

from job.settings.cli import Arguments, run
from job.voice.device import add_device, add_reference, add_weights, device_of

PORT = 8123
LOOPBACK = "127.0.0.1"
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
    device_of(args.device)
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


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.listen", "Type a text and hear it, in a browser.")
    made.add_argument(
        "checkpoint",
        help="a run (its newest and its best checkpoint), RUN/best, a checkpoint, or a folder, URI "
        "or name on the hub of published files",
    )
    made.add_argument("--port", type=int, default=PORT, help="0: any that is free")
    made.add_argument(
        "--host", default=LOOPBACK, help="another address lets others in: docs/security.md"
    )
    add_weights(made)
    add_reference(made)
    add_device(made)
    return made


if __name__ == "__main__":
    run(main)
