"""A worker's log in an object store: whole, wherever its rank was, and to its last line."""

import logging
import tempfile
from pathlib import Path

import fsspec
import pytest

from trainable.run.logs import log, start_logging, upload_log


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("handlers", "propagate"):
        monkeypatch.setattr(log, name, getattr(log, name))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield f"memory://{tmp_path.name}/run"
    for handler in log.handlers:
        handler.close()
    log.setLevel(logging.NOTSET)


def stored(folder: str) -> str:
    return fsspec.filesystem("memory").cat_file(f"{folder}/logs/rank-0.log").decode()


def test_a_rank_that_comes_to_another_machine_goes_on_with_its_log(folder, tmp_path, monkeypatch):
    begun = []
    for machine, said in (("a", "one"), ("b", "two"), ("a", "three"), ("a", "four")):
        (tmp_path / machine).mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / machine))
        path = start_logging(folder, 0)
        log.info(said)
        upload_log(path, folder)
        begun.append(said)
        assert [line.split()[-1] for line in stored(folder).splitlines()[1::2]] == begun
    log.info("lost")  # unless the next start is on this machine
    upload_log(start_logging(folder, 0), folder)
    assert "four\n" in stored(folder)
    assert "lost\n" in stored(folder)


def test_a_local_log_is_appended_to(folder, tmp_path):
    for said in ("one", "two"):
        path = start_logging(str(tmp_path / "run"), 0)
        log.info(said)
    assert path == Path(tmp_path, "run/logs/rank-0.log")
    assert [line.split()[-1] for line in path.read_text().splitlines()[1::2]] == ["one", "two"]


def test_details_are_in_the_file_alone(folder, tmp_path, capsys):
    path = start_logging(str(tmp_path / "run"), 0)
    log.debug("a detail")
    log.info("a step")
    assert [line.split()[4:] for line in path.read_text().splitlines()[1:]] == [
        ["DEBUG", "a", "detail"],
        ["INFO", "a", "step"],
    ]
    shown = capsys.readouterr().out
    assert "a step" in shown
    assert "a detail" not in shown
