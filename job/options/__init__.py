"""The commands' own options, declared where neither torch nor Ray is imported: help is quick."""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence

from job.settings.commands import HELP, Command, command_of, loading


def begin(module: str) -> None:
    """Begin a command whose imports take seconds: show its help and end, or tell that it loads.

    Args:
        module: of the command, such as `job.train`.
    """
    command = command_of(module)
    if command is not None and HELP & set(sys.argv):
        show_help(command, sys.argv[1:])
    loading()


def show_help(command: Command, argv: Sequence[str]) -> None:
    """Show the help of a command without its module, and end.

    Args:
        command: the command.
        argv: its arguments, among them one of HELP, which may be for the module that it passes on.
    """
    made = parser_of(command)
    if any(option.nargs == argparse.REMAINDER for option in made._actions):
        with contextlib.suppress(ValueError):  # the command tells it
            made.parse_args(argv)
        return
    made.parse_args([word for word in argv if word in HELP])


def parser_of(command: Command) -> argparse.ArgumentParser:
    """Return the parser of a command's options."""
    if command.is_configured:
        from job.settings.cli import parser  # brings jsonargparse: not before it is needed

        return parser(f"python -m {command.module}", f"{command.purpose.capitalize()}.")
    return importlib.import_module(command.options_in or command.module).command_line()
