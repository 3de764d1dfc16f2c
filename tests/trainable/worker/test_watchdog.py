"""A stuck thread is seen, says where it is, and hears of the others."""

import logging
import re
import threading
import time
from collections.abc import Callable

import pytest

from data.files import put_file, read_file
from trainable.worker import watchdog
from trainable.worker.watchdog import Watchdog, report_uri


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(watchdog, "COLLECT_S", 1.5)
    monkeypatch.setattr(watchdog, "LINGER_S", 0.1)


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run"


def stuck_worker(
    folder: str, rank: int, wait: Callable[[], object], attempt: str = "b"
) -> threading.Event:
    """A thread that takes three steps and then waits; the event is set when it would be ended."""
    ended = threading.Event()

    def work() -> None:
        with Watchdog(folder, rank, 3, attempt, limit_s=0.5, end=ended.set) as dog:
            for step in (1, 2, 3):
                dog.alive(step)
            wait()

    threading.Thread(target=work, daemon=True).start()
    return ended


def test_every_rank_says_where_it_is_and_who_says_nothing(folder, caplog):
    """Rank 2's report is of an earlier start of the workers."""
    put_file(report_uri(folder, 2), b'{"attempt": "a", "rank": 2, "where": "step 2, elsewhere"}\n')
    go = threading.Event()

    def all_reduce() -> None:
        go.wait(20)

    def next_batch() -> None:
        go.wait(20)

    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        ended = [stuck_worker(folder, 0, all_reduce), stuck_worker(folder, 1, next_batch)]
        assert all(event.wait(15) for event in ended)
    go.set()
    tables = [r.getMessage() for r in caplog.records if "the workers hang" in r.getMessage()]
    assert len(tables) == 2
    for table in tables:
        lines = table.splitlines()[1:]
        assert re.fullmatch(
            r"  rank 0: step 4, in test_watchdog.all_reduce:\d+ \(wait\), \d+ s", lines[0]
        )
        assert re.fullmatch(
            r"  rank 1: step 4, in test_watchdog.next_batch:\d+ \(wait\), \d+ s", lines[1]
        )
        assert lines[2] == "  rank 2: no report: its process or its node is gone or stopped"
    report = read_file(report_uri(folder, 0)).decode()
    assert "go.wait(20)" in report  # the stack
    assert report.endswith("\n".join(lines) + "\n")


def test_signs_of_life_hold_it_back_and_long_things_may_take_longer(tmp_path):
    ended = threading.Event()
    with Watchdog(str(tmp_path), 0, 1, "a", limit_s=0.4, end=ended.set) as dog:
        time.sleep(0.8)  # a first step
        for step in range(5):
            dog.alive(step)
            time.sleep(0.2)
        dog.alive(5, long=True)
        time.sleep(0.8)
        dog.alive(6)
    time.sleep(0.6)  # it is closed
    assert not ended.is_set()
    assert not (tmp_path / "logs").exists()


def test_a_store_that_does_not_answer_does_not_keep_it(tmp_path, caplog):
    (tmp_path / "logs").write_text("a file where a folder should be")
    ended = stuck_worker(str(tmp_path), 0, lambda: time.sleep(6))
    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        assert ended.wait(10)
    assert "the report cannot be written" in caplog.text
    assert "rank 0: step 4, in test_watchdog.<lambda>" in caplog.text
