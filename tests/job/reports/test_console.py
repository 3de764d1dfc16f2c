"""What job.train shows: a bar on a terminal, lines elsewhere."""

import io
import sys
from pathlib import Path

import pytest

from job.reports.console import follow, table

STEP = (
    "2026-11-25 02:23:05,143 rank 0 INFO step {}/40 epoch 0: mel {} kl 20.0 g 147.8 d 3.7 | "
    "1.7 s/step, 1.7 utterances/s, {} workers\n"
)
LINES = [
    STEP.format(4, 113.1, 2),
    "2026-11-25 02:23:06,001 rank 0 INFO step 4 is saved\n",
    STEP.format(8, 99.5, 1),
]


class Terminal(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def shown(path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    path.write_text("of an earlier start\n")
    screen = Terminal(terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    with follow(path), path.open("a") as log:
        for line in LINES:
            log.write(line)
            log.flush()
        log.write("half a li")
    return screen.getvalue()


def test_elsewhere_all_lines_are_shown_as_they_are(tmp_path, monkeypatch):
    assert shown(tmp_path / "rank-0.log", monkeypatch, terminal=False) == "".join(LINES)


def test_a_terminal_has_one_bar_with_what_matters(tmp_path, monkeypatch):
    told = shown(tmp_path / "rank-0.log", monkeypatch, terminal=True)
    last = told.rstrip().rpartition("\r")[2]
    # < stands before the time left
    for part in ("train:", "8/40", "mel 99.5", "1.7 utterances/s", "1 workers", "<"):
        assert part in last
    assert LINES[1] in told
    assert "rank 0 INFO step 8/40" not in told


def test_a_table_has_columns():
    assert table(("run", "step"), [("demo", "5"), ("a", "120")]) == "run   step\ndemo  5\na     120"
