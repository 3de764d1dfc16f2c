"""Options of job.listen."""

from job.options.voice import add_device, add_reference, add_weights
from job.settings.cli import Arguments

PORT = 8123
LOOPBACK = "127.0.0.1"


def command_line() -> Arguments:
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
