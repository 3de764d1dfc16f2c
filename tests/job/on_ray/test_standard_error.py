"""What Ray's compiled part prints past Python: what means nothing is held back, all else passes."""

import os
import re
import sys
from pathlib import Path

import pytest

from job.on_ray.watching.standard_error import quiet_standard_error
from tools.terminal_capture import run

# as of Ray 2.60.0, amid every healthy preparation
OF_EACH_POOL = (
    "[2026-11-26 17:20:46,661 E 12293 12293] core_worker.cc:2465: Actor with class name: "
    "'MapWorker(MapBatches(_OfBlocks))' and ID: '60db05ce' has constructor arguments in the object "
    "store and max_restarts > 0. If the arguments in the object store go out of scope or are lost, "
    "the actor restart will fail. See https://github.com/ray-project/ray/issues/53727\n"
)
OTHER = "[2026-11-26 17:20:46,661 E 1 1] core_worker.cc:2465: the node has died\n"


def write(text: str) -> None:
    os.write(2, text.encode())


def test_lines_that_mean_nothing_are_held_back(capfd):
    with quiet_standard_error():
        write(OF_EACH_POOL[:40])
        write(OF_EACH_POOL[40:] + OTHER)
        write("the end without a line break")
        sys.stderr.write("of Python\n")  # at once: print would write the line's end apart
    write("behind it\n")
    told = capfd.readouterr().err
    assert sorted(told.replace("break", "break\n").split("\n")) == sorted(
        ["", OTHER.rstrip(), "the end without a line break", "of Python", "behind it"]
    )


def test_it_ends_with_the_block_whatever_happens(capfd):
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(ValueError), quiet_standard_error():
            write(OF_EACH_POOL)
            raise ValueError
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    write(OF_EACH_POOL)
    assert capfd.readouterr().err == OF_EACH_POOL


@pytest.mark.processes
def test_a_terminal_stays_one_within_a_stage_that_starts_ray():
    """Else bars would be lines; what Python prints there has no detour."""
    code = (
        "import os, sys\n"
        "from job.on_ray.watching.standard_error import quiet_standard_error\n"
        "from job.reports.console import starting\n"
        "with starting('starting Ray', quiet_standard_error()):\n"
        f"    os.write(2, {(OF_EACH_POOL + OTHER).encode()!r})\n"
        "    print('a terminal:', sys.stderr.isatty(), file=sys.stderr)\n"
    )
    status, lines = run([sys.executable, "-c", code], columns=120)
    shown = [line for line in lines if line]
    assert status == 0, shown
    assert re.fullmatch("\u2713 starting Ray: [0-9.]+ s", shown[0])
    assert sorted(shown[1:]) == sorted(["a terminal: True", OTHER.rstrip()])
