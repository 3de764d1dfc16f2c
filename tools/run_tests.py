"""The fast suite in three processes at once, which share its modules.

    python -m tools.run_tests [--quick] [options and paths of pytest]

One begins with what starts Ray, another with everything else; whichever is through first goes on
with what the other has not begun. The third helps with what starts no Ray: two cores are idle while
a cluster waits for its nodes. --quick runs what starts no Ray and no process and takes under a
second, in two processes.

Each process may end without a summary: a Ray driver exits at once, with status 1, when its raylet
dies. The test in which that happened is then named, and a new process runs the tests that were not
done; it leaves out a test that ended two processes. The last line counts the tests of all.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.record_tests import CLAIMS, CLUSTERS, DONE, HELPER, PART, RECORD

PARTS = (CLUSTERS, "others", HELPER)
FAST = "not slow"
QUICK = "not slow and not cluster and not processes and not medium"
ATTEMPTS = 3
STALL_S = 1200  # without a test that begins or is done; tests have limits of their own below it
ENDS_WITHIN_S = 60  # a process that is interrupted
NO_TESTS = 5  # pytest's status
LOST = 70  # our status where a test has not come to an end


@dataclass
class Record:
    """What the processes of a part have done.

    Attributes:
        outcomes: what each test has come to.
        done: tests that are done.
        running: test that was begun last and is not done.
        ended: whether the last process printed its summary.
    """

    outcomes: dict[str, str]
    done: set[str]
    running: str | None
    ended: bool

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read what record_tests wrote."""
        record = cls({}, set(), None, False)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in map(json.loads, lines):
            record.note(line)
        return record

    def note(self, line: dict) -> None:
        """Take in a line."""
        self.ended = "ends" in line
        if "begins" in line:
            self.running = line["begins"]
            self.outcomes.pop(self.running, None)
        elif "done" in line:
            self.done.add(line["done"])
            self.running = None
        elif "test" in line and self.outcomes.get(line["test"]) in (None, "passed"):
            self.outcomes[line["test"]] = line["outcome"]


class Part:
    """A pytest process with a share of the tests, started again if it is lost."""

    def __init__(self, name: str, options: list[str], folder: Path, shown: bool):
        """Start it.

        Args:
            name: one of PARTS.
            options: further arguments of pytest.
            folder: for its output and its record.
            shown: whether its output is shown as it comes; otherwise `show` does so at the end.
        """
        self.name = name
        self.options = options
        self.shown = shown
        self.output = folder / f"{name}.log"
        self.record = folder / f"{name}.jsonl"
        self.done = folder / f"{name}.done"
        self.claims = folder / "claims"
        self.claims.mkdir(exist_ok=True)
        self.attempt = 0
        self.lost_in: list[str] = []
        self.status: int | None = None
        self.start()

    def start(self) -> None:
        """Start a process that runs what is not done."""
        self.attempt += 1
        done = Record.read(self.record).done | self.left_out()
        self.done.write_text("\n".join(done), encoding="utf-8")
        env = os.environ | {RECORD: str(self.record), DONE: str(self.done)}
        env |= {CLAIMS: str(self.claims), PART: self.name}
        # each of the tests' processes would compile the project's modules
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        argv = [sys.executable, "-m", "pytest", "-p", "tools.record_tests"]
        with self.output.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [*argv, *self.options],
                env=env,
                stdout=None if self.shown else output,
                stderr=None if self.shown else subprocess.STDOUT,
                start_new_session=True,
            )
        self.heard = time.monotonic()
        self.size = 0

    def left_out(self) -> set[str]:
        """Return the tests that are not tried again."""
        return {name for name, times in Counter(self.lost_in).items() if times > 1}

    def poll(self) -> bool:
        """Look after the process; return whether the part is over."""
        if self.status is not None:
            return True
        status = self.process.poll()
        if status is None:
            self.end_if_stalled()
            return False
        self.signal(signal.SIGKILL)  # what it has left behind
        record = Record.read(self.record)
        if record.ended:
            self.status = LOST if self.left_out() else status
        else:
            self.lost(status, record)
        return self.status is not None

    def end_if_stalled(self) -> None:
        """End the process, with its stacks in the output, if nothing has happened for too long."""
        size = self.record.stat().st_size if self.record.exists() else 0
        if size != self.size:
            self.size = size
            self.heard = time.monotonic()
        if time.monotonic() - self.heard > STALL_S:
            say(f"the part {self.name} has not ended a test for {STALL_S} s: it is ended")
            self.process.send_signal(signal.SIGABRT)  # pytest prints the stacks
            time.sleep(1)
            self.signal(signal.SIGKILL)

    def lost(self, status: int, record: Record) -> None:
        """Tell what became of a process without a summary, and try again if that may help."""
        self.lost_in += [record.running] if record.running else []
        say(
            f"the part {self.name} ended without a summary, with status {status}, "
            f"{f'in {record.running}' if record.running else 'outside a test'}; "
            f"{len(record.done)} of its tests were done. A Ray driver ends so when its raylet "
            f"dies: see the logs below {tempfile.gettempdir()}/ray*/session_*/logs"
        )
        if self.attempt < ATTEMPTS:
            say(f"the part {self.name} continues with the tests that were not done")
            self.start()
        else:
            say(f"the part {self.name} was lost {ATTEMPTS} times and is given up")
            self.status = LOST

    def signal(self, number: int) -> None:
        """Send a signal to the process and to what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def show(self) -> None:
        """Print the output, where that was not done as it came."""
        if not self.shown:
            print(f"\n{f' {self.name} ':-^80}", flush=True)
            print(self.output.read_text(encoding="utf-8", errors="replace"), flush=True)


def say(what: str) -> None:
    """Print a line that does not drown among those of pytest."""
    print(f"\n*** {what} ***", flush=True)


def outcomes(parts: list[Part]) -> dict[str, str]:
    """Return what each test has come to; one that always ended its process has failed."""
    found: dict[str, str] = {}
    for part in parts:
        record = Record.read(part.record)
        found |= record.outcomes
        found |= {name: "failed" for name in part.lost_in if name not in record.done}
    return found


def closing(outcomes: dict[str, str], seconds: float) -> str:
    """Return the last lines, as pytest has them: what failed, and how many of each outcome."""
    failed = [name for name, how in outcomes.items() if how in ("failed", "error")]
    counts = Counter(outcomes.values())
    kinds = ("failed", "passed", "skipped", "error")
    told = ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts[kind]) or "no tests ran"
    lines = [f"FAILED {name}" for name in failed]
    return "\n".join([*lines, f"{f' {told} in {seconds:.0f} s ':=^80}"])


def status_of(parts: list[Part]) -> int:
    """Return 0 if all that ran has passed, and pytest's status of the worst part otherwise."""
    statuses = [part.status or 0 for part in parts]
    bad = [status for status in statuses if status not in (0, NO_TESTS)]
    if bad:
        return max(map(abs, bad))
    return NO_TESTS if all(statuses) else 0


def run(names: Sequence[str], options: list[str], folder: Path) -> int:
    """Run parts; return the exit status."""
    began = time.monotonic()
    parts = [Part(name, options, folder, shown=i == 0) for i, name in enumerate(names)]
    try:
        while sum(part.poll() for part in parts) < len(parts):
            time.sleep(0.2)
    except KeyboardInterrupt:
        for part in parts:
            part.signal(signal.SIGINT)
        for part in parts:
            part.process.wait(ENDS_WITHIN_S)
        return 128 + signal.SIGINT
    for part in parts:
        part.show()
    print(closing(outcomes(parts), time.monotonic() - began), flush=True)
    return status_of(parts)


def main(argv: list[str] | None = None) -> int:
    """Run the fast suite."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only what takes under a second")
    known, options = parser.parse_known_args(argv)
    options = ["-m", QUICK if known.quick else FAST, *options]
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    # the parts have sessions of their own, and would outlive this process
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(PARTS[:2] if known.quick else PARTS, options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
