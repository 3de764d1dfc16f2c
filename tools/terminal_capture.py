"""Run a command on a terminal in memory, and write what it has shown as text.

`python -m tools.terminal_capture --columns 80 --out docs/terminal/train.txt -- python -m job.train
--config job/presets/demo.yaml`. Lines that were drawn again are there as they stood in the end.
"""

import argparse
import contextlib
import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pyte

ROWS = 50
MOST_LINES = 5000
HOME = "/home/me/bert-vits2-ray"  # stands for the folder that this runs in


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser("python -m tools.terminal_capture", description=__doc__)
    made.add_argument("--columns", type=int, default=80, help="width of the terminal")
    made.add_argument("--out", required=True, type=Path, help="file to write")
    made.add_argument("command", nargs=argparse.REMAINDER)
    args = made.parse_args(list(argv))
    command = args.command[args.command[:1] == ["--"] :]
    status, lines = run(command, args.columns)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    told = "\n".join([f"$ {shlex.join(command)}", *lines]).rstrip()
    args.out.write_text(f"{told}\n".replace(str(Path.cwd()), HOME), encoding="utf-8")
    return status


def run(command: Sequence[str], columns: int) -> tuple[int, list[str]]:
    """Return a command's exit status, and the lines on its terminal in the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    screen = pyte.HistoryScreen(columns, ROWS, history=MOST_LINES)
    stream = pyte.ByteStream(screen)
    own = {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | own
    )
    os.close(theirs)
    with contextlib.suppress(OSError):  # Linux tells the end so
        while part := os.read(ours, 4096):
            stream.feed(part)
    before = ["".join(row[i].data for i in range(columns)) for row in screen.history.top]
    return process.wait(), [line.rstrip() for line in [*before, *screen.display]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
