"""The benchmark of a long run's records: small, but whole."""

import json
import sys

import pytest

from benchmarks import records


@pytest.mark.processes
def test_figures_stay_where_they_are_when_a_run_gets_longer(tmp_path, monkeypatch):
    sizes = ["--steps", "20000", "--board-steps", "20000", "--runs", "20"]
    monkeypatch.setattr(
        sys, "argv", ["benchmarks.records", *sizes, "--json", str(tmp_path / "found.json")]
    )
    records.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.keys() == {
        "resume_s",
        "resume_read_mb",
        "event_files",
        "consumed_bytes_per_line",
        "runs_s",
    }
    assert found["resume_read_mb"] < 5  # of 50 MB
    assert found["event_files"] < 5  # of 660 half minutes
    assert found["consumed_bytes_per_line"]["512"] <= found["consumed_bytes_per_line"]["4"] < 60
