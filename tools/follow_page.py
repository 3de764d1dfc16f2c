"""Follow a page word for word in a clean checkout: `python -m tools.follow_page README.md`.

It clones the last commit, runs each command of the page's fenced blocks there in order, and prints
its exit status and seconds. What the reader is to bring lies in `--bring FOLDER`, which is copied
in: recordings, my.list, my.yaml.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.pages import commands

ROOT = Path(__file__).parents[1]


def main(argv: Sequence[str]) -> int:
    """Run the command; the status is 1 if a command of the page failed."""
    made = argparse.ArgumentParser("python -m tools.follow_page", description=__doc__)
    made.add_argument("page", help="a page of this project, such as README.md")
    made.add_argument(
        "--only", default="", help="run only commands that begin with this, and name the others"
    )
    made.add_argument(
        "--bring", type=Path, help="folder whose content the reader has in the checkout"
    )
    args = made.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="follow-") as folder:
        checkout = Path(folder, "checkout")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        if args.bring:
            shutil.copytree(args.bring, checkout, dirs_exist_ok=True)
        return follow(checkout, checkout / args.page, args.only)


def follow(checkout: Path, page: Path, only: str) -> int:
    """Run a page's commands in a checkout; return 1 if one failed."""
    path = f"{checkout}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path}
    worst = 0
    for command in commands(page):
        if not command.startswith(only):
            print(f"left out: {command}", flush=True)
            continue
        began = time.monotonic()
        status = subprocess.run(["bash", "-c", command], cwd=checkout, env=env).returncode
        print(f"status {status}, {time.monotonic() - began:.0f} s: {command}", flush=True)
        worst = max(worst, int(status != 0))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
