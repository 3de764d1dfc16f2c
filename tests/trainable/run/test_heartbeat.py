"""What a run's folder says of whoever trains it, and how late a beat may be."""

import errno
import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from data.files import put_file
from trainable.run import heartbeat
from trainable.run.heartbeat import (
    EVERY_S,
    FAILED,
    FINISHED,
    LOST,
    RUNNING,
    STOPPED,
    Status,
    beating,
    read_status,
    write_status,
)
from trainable.run.storage import claim

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["disk", "store"])
def folder(request, tmp_path) -> str:
    return f"{tmp_path}/run" if request.param == "disk" else f"memory://{tmp_path.name}/run"


@pytest.mark.parametrize(
    ("seconds", "seen"),
    [(-45, RUNNING), (0, RUNNING), (EVERY_S + 45, RUNNING), (3600, LOST), (3 * EVERY_S + 61, LOST)],
)
def test_a_run_is_lost_once_beats_are_overdue_though_clocks_may_differ(seconds, seen):
    status = Status(RUNNING, NOW.isoformat())
    assert status.seen(NOW + timedelta(seconds=seconds)) == seen


@pytest.mark.parametrize("state", [STOPPED, FINISHED, FAILED])
def test_a_run_that_has_ended_stays_so(state):
    assert Status(state, NOW.isoformat()).seen(NOW + timedelta(days=99)) == state


def test_a_slower_writer_says_so_itself():
    status = Status(RUNNING, NOW.isoformat(), interval_s=3600)
    assert status.seen(NOW + timedelta(hours=2)) == RUNNING


def test_it_beats_until_the_run_has_ended(folder, monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.01)
    with beating(folder, claim(folder)) as heart:
        times = set()
        deadline = time.monotonic() + 10
        while len(times) < 2:  # seconds
            assert time.monotonic() < deadline
            if (status := read_status(folder)) is not None:
                assert (status.state, status.step) == (RUNNING, None)
                times.add(status.time)
            time.sleep(0.01)
        heart.ended(FAILED, step=7, error="it broke")
        time.sleep(0.05)
    status = read_status(folder)
    assert (status.state, status.step, status.error) == (FAILED, 7, "it broke")


def test_a_driver_that_dies_leaves_the_last_beat(folder):
    write_status(folder, claim(folder), RUNNING)
    status = read_status(folder)
    assert status.seen(datetime.now(UTC)) == RUNNING
    assert status.seen(datetime.now(UTC) + timedelta(minutes=5)) == LOST


def test_an_earlier_job_says_nothing_more_of_a_run(folder):
    earlier = claim(folder)
    write_status(folder, claim(folder), RUNNING)
    assert write_status(folder, earlier, STOPPED, 5) == ""
    assert read_status(folder).state == RUNNING


def test_a_beat_that_cannot_be_written_is_logged_once_and_harms_nothing(
    tmp_path, monkeypatch, caplog
):
    ours = claim(str(tmp_path))

    def fails(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(heartbeat, "put_file", fails)
    with caplog.at_level(logging.WARNING, "bert_vits2_ray"), beating(str(tmp_path), ours) as heart:
        for _ in range(3):
            heart.beat()
        heart.ended(FINISHED, 9)
    assert caplog.text.count("status.json is not written") == 1
    assert "Read-only file system" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"null", b'{"state": "running"}']
    + [
        json.dumps({"state": state, "time": time}).encode()
        for state, time in [("running", "yesterday"), ("dancing", NOW.isoformat()), ("running", 5)]
    ]
    + [b'{"state": "running", "time": "2026-01-02T03:04:05"}'],
)
def test_a_file_that_says_nothing_is_no_status(folder, content):
    put_file(f"{folder}/status.json", content)
    assert read_status(folder) is None


def test_a_run_of_older_code_has_none(folder):
    assert read_status(folder) is None


def test_a_status_of_newer_code_is_read(folder):
    more = {"state": STOPPED, "time": NOW.isoformat(), "step": 3, "mood": "good"}
    put_file(f"{folder}/status.json", json.dumps(more).encode())
    assert read_status(folder) == Status(STOPPED, NOW.isoformat(), step=3)
