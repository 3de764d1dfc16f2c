"""Run a command on a terminal, and write what it has shown as text.

`python -m tools.terminal_capture --columns 80 --out train-80.txt -- python -m job.train
--config job/presets/demo.yaml`. Lines that were drawn again are there as they stood in the end. The
terminal is tmux's, or one in memory where there is no tmux.
"""

import argparse
import contextlib
import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pyte

ROWS = 50
MOST_LINES = 5000
LOOK_EVERY_S = 0.2
LONGEST_S = 900
HOME = "/home/me/bert-vits2-ray"  # stands for the folder that this runs in
TMUX = shutil.which("tmux")
# what Ray says of a machine that has other work too, in a line of its own
OF_THE_MACHINE = re.compile(r"\((raylet|autoscaler)\b")
# what depends on the machine and its speed -> what stands for it
MASKS = {
    r"\b[0-9a-f]{5}_\d{5}\b": "TRIAL",
    r"\d[\d.,:]*": "0",
    r"[━─]+": "━",
    r"[↓↑] ": "",
    r"AVX\w*|NEON": "SIMD",
    r" {2,}": "  ",
}


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser("python -m tools.terminal_capture", description=__doc__)
    made.add_argument("--columns", type=int, default=80, help="width of the terminal")
    made.add_argument("--out", required=True, type=Path, help="file to write")
    made.add_argument("command", nargs=argparse.REMAINDER)
    args = made.parse_args(list(argv))
    command = args.command[args.command[:1] == ["--"] :]
    status, lines = (run_in_tmux if TMUX else run)(command, args.columns)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(as_shown(command, lines, args.columns), encoding="utf-8")
    return status


def run(command: Sequence[str], columns: int) -> tuple[int, list[str]]:
    """Return a command's exit status, and the lines on a terminal in memory in the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    screen = pyte.HistoryScreen(columns, ROWS, history=MOST_LINES)
    stream = pyte.ByteStream(screen)
    own = {"TERM": "xterm-256color"} | _path()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | own
    )
    os.close(theirs)
    with contextlib.suppress(OSError):  # Linux tells the end so
        while part := os.read(ours, 4096):
            stream.feed(part)
    before = ["".join(row[i].data for i in range(columns)) for row in screen.history.top]
    return process.wait(), [line.rstrip() for line in [*before, *screen.display]]


def run_in_tmux(
    command: Sequence[str], columns: int, cwd: Path | None = None
) -> tuple[int, list[str]]:
    """Return a command's exit status, and the lines on a terminal of tmux in the end.

    Lines that the terminal has wrapped are whole.

    Args:
        command: the command.
        columns: width of the terminal.
        cwd: where it runs; None: here.

    Raises:
        TimeoutError: it has not ended in a quarter of an hour.
    """
    with tempfile.TemporaryDirectory() as folder:
        status = Path(folder) / "status"
        # a server of its own, which reads nobody's settings
        tmux = [str(TMUX), "-u", "-f", os.devnull, "-S", f"{folder}/socket"]
        # the pane outlives the command, until it was read
        written = f"{status}.part"
        line = f"{shlex.join(command)}; echo $? > {written}; mv {written} {status}; exec sleep 60"
        settings = ["set", "-g", "history-limit", str(MOST_LINES), ";", "set", "-g"]
        settings += ["default-terminal", "screen-256color", ";"]
        session = ["new-session", "-d", "-x", str(columns), "-y", str(ROWS), line]
        env = os.environ | {"LC_ALL": "C.UTF-8"} | _path()
        subprocess.run([*tmux, *settings, *session], check=True, cwd=cwd, env=env)
        try:
            _wait_for(status)
            shown = subprocess.run(
                [*tmux, "capture-pane", "-p", "-J", "-S", "-"],
                check=True,
                capture_output=True,
                encoding="utf-8",
            )
        finally:
            subprocess.run([*tmux, "kill-server"], check=True)
        return int(status.read_text(encoding="ascii")), [
            line.rstrip() for line in shown.stdout.splitlines()
        ]


def _path() -> dict[str, str]:
    """Return the variable that has `python` mean this one."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _wait_for(file: Path) -> None:
    end = time.monotonic() + LONGEST_S
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"the command has not ended within {LONGEST_S} s")
        time.sleep(LOOK_EVERY_S)


def as_shown(
    command: Sequence[str], lines: Sequence[str], columns: int, cwd: Path | None = None
) -> str:
    """Return a capture as text: the command, and the lines as wide as the terminal.

    Args:
        command: the command.
        lines: what it has shown.
        columns: width of the terminal.
        cwd: where it has run, for which HOME stands; None: here.
    """
    told = [line.replace(str(cwd or Path.cwd()), HOME) for line in lines]
    wrapped = [
        line[start : start + columns]
        for line in told
        for start in range(0, max(1, len(line)), columns)
    ]
    return "\n".join([f"$ {shlex.join(command)}", *wrapped]).rstrip() + "\n"


def masked(lines: Sequence[str], cwd: Path) -> str:
    """Return lines with signs in place of what depends on the machine, each once.

    Args:
        lines: what a command has shown.
        cwd: where it has run, for which HOME stands.
    """
    told = []
    for line in lines:
        if not line or OF_THE_MACHINE.match(line):
            continue
        line = line.replace(str(cwd), HOME)
        for pattern, sign in MASKS.items():
            line = re.sub(pattern, sign, line)
        told.append(line)
    return "\n".join(dict.fromkeys(told)) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
