"""Sweeps as users run them, on the prepared demo corpus."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.job.conftest import arguments, call, command, environment, shards

__all__ = ["call", "command", "environment", "shards"]

METRIC = "eval/mel"
SPACE = """
train.loss_weights.mel: {loguniform: [1, 90]}
train.learning_rate: {choice: [0.002, 1.0e-7]}
"""


@pytest.fixture(scope="session")
def sweep_arguments(shards, tmp_path_factory) -> Callable[..., list[str]]:
    """The command line of a small sweep of the demo preset; keyword arguments are overrides."""
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(SPACE)

    def made(storage: Path, **options: object) -> list[str]:
        base = {
            "scaling__num_workers": 1,
            "train__micro_batches_per_step": 2,
            "train__checkpoint__every_steps": 2,
        }
        base |= {"eval__every_steps": 2, "train__max_steps": 6, "space": space, "metric": METRIC}
        return arguments(shards, storage, **base | options)

    return made
