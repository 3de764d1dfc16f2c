"""Progress without a terminal: a line from time to time, and one at the end."""

import pytest

from data.corpus import progress
from data.corpus.progress import Progress


def test_lines_say_how_far_and_how_long(monkeypatch, capsys) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    counted = Progress("features", 4000)
    for _ in range(8):
        now += 20.0
        counted.advance(500)
    counted.close()
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # after 40, 80 and 120 s
    assert all(
        part in lines[0] for part in ("features", "1000/4000", "00:40<02:00", "25.00 utterances/s")
    )
    assert last == "features: 4000 of 4000 utterances in 160.0 s"


@pytest.mark.parametrize("total", [0, 1])
def test_little_work_says_little(total: int, capsys) -> None:
    counted = Progress("survey", total)
    counted.advance(total)
    counted.close()
    assert len(capsys.readouterr().out.splitlines()) == 1
