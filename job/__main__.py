"""All commands under one name: `python -m job train --config C ...`; `python -m job` lists them."""

import importlib
import sys
from collections.abc import Sequence

from job.settings.cli import parser, run
from job.settings.commands import ALL, PROGRAM, Command, find, loaded, loading, overview

HELP = {"-h", "--help", ALL}


def main(argv: Sequence[str]) -> int:
    """Run the command that the first argument names."""
    if not argv or argv[0] in HELP:
        print(overview(), end="")
        return 0
    command = find(argv[0])
    sys.argv = [f"{PROGRAM} {command.name}", *argv[1:]]
    show_help_at_once(command, argv[1:])
    loading()
    module = importlib.import_module(command.module)
    loaded()
    return module.main(argv[1:])


def show_help_at_once(command: Command, argv: Sequence[str]) -> None:
    """Show the help of a command whose options are the configuration's, and end.

    Its module would import torch and Ray, which takes seconds.
    """
    if command.is_configured and HELP & set(argv):
        parser(f"python -m {command.module}", f"{command.purpose.capitalize()}.").parse_args(
            [word for word in argv if word in HELP]
        )


if __name__ == "__main__":
    run(main)
