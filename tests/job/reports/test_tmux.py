"""Real commands on terminals of tmux, compared with what they have shown before.

`UPDATE_GOLDEN=1` writes that: golden/tmux-*.txt, and docs/terminal for readers.
"""

import os
import shlex

import pytest

from tests.job.reports.terminal import GOLDEN
from tests.test_house import ROOT
from tools.terminal_capture import TMUX, as_shown, masked, run_in_tmux

DEMO = "--config job/presets/demo.yaml"
SMALL = "--train.segment_size 4096 --data.plan.max_frames 500 --eval.max_utterances 2"
COMMANDS = {
    "prepare": f"python -m job.prepare {DEMO}",
    "train": f"python -m job.train {DEMO} --train.max_steps 12 --eval.every_steps 6 {SMALL}",
    "sweep": (
        f"python -m tuning.sweep {DEMO} --space loss_weights --trials 2 --at-once 1 "
        f"--train.max_steps 4 --eval.every_steps 2 --eval.samples 1 --eval.syntheses 1 {SMALL}"
    ),
}


@pytest.fixture
def checkout(tmp_path):
    """A folder with the project's packages, in which runs and shards may lie."""
    folder = tmp_path / "bert-vits2-ray"
    folder.mkdir()
    for package in ("data", "job", "trainable", "tuning"):
        (folder / package).symlink_to(ROOT / package)
    return folder


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1000)
@pytest.mark.skipif(TMUX is None, reason="no tmux: install it to capture terminals")
@pytest.mark.parametrize("columns", [80, 120])
def test_commands_show_in_tmux_what_they_have_shown(checkout, columns):
    shown, expected = {}, {}
    updates = bool(os.environ.get("UPDATE_GOLDEN"))
    names = [n for n in COMMANDS if updates or (GOLDEN / f"tmux-{n}-{columns}.txt").exists()]
    if not names:
        pytest.skip(f"nothing was captured at {columns} columns yet: UPDATE_GOLDEN=1 does it")
    for name in names:
        command = shlex.split(COMMANDS[name])
        status, lines = run_in_tmux(command, columns, checkout)
        assert status == 0, "\n".join(lines)
        bars = [line for line in lines if "━" in line or line.startswith("epoch")]
        assert all(len(line) <= columns for line in bars)
        shown[name] = masked(lines, checkout)
        golden = GOLDEN / f"tmux-{name}-{columns}.txt"
        if updates:
            golden.write_text(shown[name], encoding="utf-8")
            page = ROOT / f"docs/terminal/{name}-{columns}.txt"
            page.write_text(as_shown(command, lines, columns, checkout), encoding="utf-8")
        expected[name] = golden.read_text(encoding="utf-8")
    assert shown == expected
