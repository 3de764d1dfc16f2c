"""The Ray that tests share starts beside other work."""

import shutil
from pathlib import Path

import pytest
import ray

from tests.conftest import start_ray


@pytest.mark.medium  # imports Ray
def test_a_start_that_failed_is_tried_with_another_port_and_folder(monkeypatch):
    asked = []

    def start(cpus: int, folder: str, dashboard_port: int, **_: object) -> None:
        asked.append((folder, dashboard_port))
        if len(asked) == 1:
            raise ValueError("Failed to bind: it is occupied")

    monkeypatch.setattr("job.on_ray.private.start_on_loopback", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    folder, dashboard = start_ray(dashboard=True)
    (first, port), (second, another) = asked
    assert port != another
    assert not Path(first).exists()
    assert (folder, dashboard) == (second, f"http://127.0.0.1:{another}")
    shutil.rmtree(folder)
