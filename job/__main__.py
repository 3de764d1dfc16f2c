"""All commands under one name: `python -m job train --config C ...`; `python -m job` lists them."""

import importlib
import sys
from collections.abc import Sequence

from job.options import begin
from job.settings.cli import run
from job.settings.commands import HELP, PROGRAM, find, loaded, overview


def main(argv: Sequence[str]) -> int:
    """Run the command that the first argument names."""
    if not argv or argv[0] in HELP:
        print(overview(), end="")
        return 0
    command = find(argv[0])
    sys.argv = [f"{PROGRAM} {command.name}", *argv[1:]]
    begin(command.module)
    module = importlib.import_module(command.main_in or command.module)
    loaded()
    return module.main(argv[1:])


if __name__ == "__main__":
    run(main)
