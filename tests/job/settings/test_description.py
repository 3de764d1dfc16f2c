"""What a run's folder says of its making."""

import pytest

from job.settings import description
from job.settings.description import commit

HEAD = "1f" * 20


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"HEAD": HEAD}, HEAD),
        ({"HEAD": "ref: refs/heads/main", "refs/heads/main": HEAD}, HEAD),
        (
            {
                "HEAD": "ref: refs/heads/main",
                "packed-refs": f"# pack\n{'2e' * 20} refs/x\n{HEAD} refs/heads/main",
            },
            HEAD,
        ),
        ({"HEAD": "ref: refs/heads/main"}, ""),
        ({}, ""),
    ],
)
def test_the_commit_is_read_where_there_is_a_repository(files, found, tmp_path, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    monkeypatch.setattr(description, "GIT", tmp_path)
    assert commit() == found
